"""PyTorch modules that are not, or not only, what their types say: changed, wrapped, parametrized; and the user's own
module, which is not changed.
"""

from __future__ import annotations

import copy
import random
import subprocess
import sys
import warnings

import numpy as np
import pytest

import quantgru as qg

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install quantgru[torch]")

from pytorch_nets import EndingNet, Last, Plain, assert_equal, seed, steps_first  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.nn.utils import prune  # noqa: E402


class Clamping(nn.Linear):
    """As its type, for inputs of -6 ... 6."""

    def forward(self, x):
        return functional.linear(x.clamp(-6, 6), self.weight, self.bias)


class Window(nn.GRU):
    """As its type, for at most ten steps."""

    def forward(self, x, hx=None):
        return super().forward(x[:, -10:], hx)


def hooked(module, path, hook, before=False):
    part = module.get_submodule(path)
    part.register_forward_pre_hook(hook) if before else part.register_forward_hook(hook)
    return module


def with_own_forward(module, path, forward):
    module.get_submodule(path).forward = forward
    return module


def clamped(module, inputs):
    return (inputs[0].clamp(-5, 5),)


EVERY_STEP = {"steps": lambda self, out, h: self.fc(out)}


CHANGED = {
    "linear": (
        lambda: nn.Sequential(Clamping(4, 6), nn.GRU(6, 3)),
        r"module '0' \(Clamping\): a forward\(\) of its own",
    ),
    "gru": (lambda: nn.Sequential(Window(4, 6, batch_first=True)), r"module '0' \(Window\): a forward\(\) of its own"),
    "bare gru": (lambda: Window(4, 6, batch_first=True), r"module 'gru' \(Window\): a forward\(\) of its own"),
    "forward of an object": (
        lambda: with_own_forward(EndingNet(**EVERY_STEP), "fc", lambda x: x.clamp(-6, 6)[..., :4]),
        r"module 'fc' \(Linear\): a forward\(\) of its own",
    ),
    "forward of the whole": (
        lambda: with_own_forward(
            net := EndingNet(**EVERY_STEP), "", lambda x: EndingNet.forward(net, x.clamp(-50, 50))
        ),
        r"PyTorch module EndingNet: its forward\(\) is not that of its class",
    ),
    "pre-hook of a gru": (
        lambda: hooked(EndingNet(**EVERY_STEP), "gru", clamped, before=True),
        r"module 'gru' \(GRU\): a forward hook; .*handle.remove\(\)",
    ),
    "pre-hook of a bare gru": (lambda: hooked(nn.GRU(4, 6), "", clamped, before=True), "module 'gru' .*a forward hook"),
    "hook of a dense layer": (
        lambda: hooked(EndingNet(**EVERY_STEP), "fc", lambda module, x, y: y.clamp(-50, 50)),
        r"module 'fc' \(Linear\): a forward hook",
    ),
    "hook of a dropout": (
        lambda: hooked(EndingNet(lambda s, out, h: s.drop(out)), "drop", lambda module, x, y: y.clamp(-50, 50)),
        r"module 'drop' \(Dropout\): a forward hook",
    ),
    "hook of the whole": (
        lambda: hooked(EndingNet(**EVERY_STEP), "", lambda module, x, y: y.clamp(-50, 50)),
        "PyTorch module EndingNet: a forward hook",
    ),
    "hook of a part": (
        lambda: hooked(nn.Sequential(nn.Sequential(nn.Linear(3, 3)), nn.GRU(3, 5)), "0", clamped, before=True),
        "method 'clamp': this operation is not supported here",
    ),
}


@pytest.mark.parametrize("case", CHANGED)
def test_modules_that_differ_for_large_or_long_inputs_only(case):
    make, message = CHANGED[case]
    with pytest.raises(qg.ModelError, match=message):
        qg.load(make())


def test_a_subclass_that_keeps_forward_is_its_type():
    module = seed(nn.Sequential(Plain(3)))
    assert_equal(module, qg.load(module))


def test_weights_through_parametrizations():
    module = EndingNet(lambda self, out, h: self.fc(out))
    nn.utils.parametrizations.weight_norm(module.gru, "weight_hh_l0")
    nn.utils.parametrizations.weight_norm(module.fc, "weight")
    module = seed(module)
    assert_equal(module, qg.load(module))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("change", ["weight_norm", "spectral_norm", "prune"])
def test_hooks_that_compute_weights(change):
    module = seed(EndingNet(**EVERY_STEP))
    if change == "prune":
        prune.l1_unstructured(module.fc, "weight", 0.5)
        prune.l1_unstructured(module.gru, "weight_hh_l0", 0.5)
    else:
        getattr(nn.utils, change)(module.fc)
    assert_equal(module, qg.load(module))  # before and after a call, which computes them
    assert_equal(module, qg.load(module))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_no_call_has_computed_since_they_were_loaded():
    module, other = seed(EndingNet(**EVERY_STEP)), seed(EndingNet(**EVERY_STEP), 0.5)
    for each in (module, other):
        nn.utils.weight_norm(each.gru, "weight_hh_l0")
    other.load_state_dict(module.state_dict())
    assert_equal(module, qg.load(other))


@pytest.mark.parametrize("layer", ["gru", "fc"])
def test_the_second_comparison_is_of_more_steps_and_larger_values(layer, monkeypatch):
    """What nothing else finds: an operation that is another one beyond the first comparison."""
    module = seed(EndingNet(**EVERY_STEP))
    part = {"gru": "torch._VF.gru", "fc": "torch.nn.functional.linear"}[layer]
    original = {"gru": torch._VF.gru, "fc": functional.linear}[layer]
    monkeypatch.setattr(part, lambda x, *rest: original(x.clamp(-7, 7), *rest))
    with pytest.raises(qg.ModelError, match=f"module '{layer}' .*differs by"):
        qg.load(module)


def test_the_second_comparison_is_of_the_whole_module_too():
    class Stepwise(EndingNet):
        def forward(self, x):
            out, _ = self.gru(x)
            return out if isinstance(x, torch.fx.Proxy) or x.size(1) < 20 else 2 * out

    with pytest.raises(qg.ModelError, match=r"PyTorch module Stepwise: its import differs by 5\.0e-01"):
        qg.load(seed(Stepwise(None)))


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_saturated_and_large_models_pass_the_second_comparison(scale):
    module = seed(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), Plain(8)), scale)
    assert_equal(module, qg.load(module))


def test_the_compiler_of_pytorch_is_not_imported():
    """It takes seconds."""
    code = (
        "import sys, torch, quantgru as qg\n"
        "qg.load(torch.nn.GRU(3, 4))\n"
        "assert not [name for name in sys.modules if name.startswith('torch._dynamo.eval_frame')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Noisy(EndingNet):
    """Draws random numbers and counts its calls in forward()."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        torch.rand(3), np.random.rand(3), random.random()
        out, h_n = self.gru(x)
        return self.steps(self, out, h_n)


@pytest.mark.parametrize(
    "ending", [lambda s, out, h: s.fc(out), lambda s, out, h: s.fc(out).mean(1)], ids=["good", "refused"]
)
@pytest.mark.parametrize("training", [True, False])
def test_module_and_random_states_are_unchanged(ending, training):
    module = Noisy(ending).train(training)
    module.gru.weight_ih_l0.requires_grad_(False)
    module.fc.train(not training)
    before = {name: values.clone() for name, values in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    gradients = [(p.requires_grad, p.device, p.dtype, p.data_ptr()) for p in module.parameters()]
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    grad_mode, default_type = torch.is_grad_enabled(), torch.get_default_dtype()
    try:
        qg.load(module)
    except qg.ModelError as error:
        assert "method 'mean'" in str(error)  # noqa: PT017
    assert all(torch.equal(values, before[name]) for name, values in module.state_dict().items())
    assert [part.training for part in module.modules()] == modes
    assert [(p.requires_grad, p.device, p.dtype, p.data_ptr()) for p in module.parameters()] == gradients
    assert module.calls == 0
    assert torch.is_grad_enabled() == grad_mode
    assert torch.get_default_dtype() == default_type
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])
    assert np.random.get_state()[2:] == numpy_state[2:]
    assert random.getstate() == python_state


def test_import_owns_its_arrays():
    module = nn.GRU(3, 4)
    model = qg.load(module)
    before = model.layers[0].input_weights.copy()
    with torch.no_grad():
        module.weight_ih_l0.zero_()
    assert np.array_equal(model.layers[0].input_weights, before)
    assert not model.layers[0].input_weights.flags.writeable


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        torch.compile,
        torch.optim.swa_utils.AveragedModel,
        lambda module: torch.compile(nn.DataParallel(module)),
    ],
    ids=["data parallel", "compile", "average", "both"],
)
def test_wrappers_are_looked_through(wrap):
    module = seed(EndingNet(**EVERY_STEP))
    model = qg.load(wrap(module))
    assert model.name == "ending_net"
    assert_equal(module, model)
    hooked = wrap(module)
    hooked.register_forward_hook(lambda module, x, y: 2 * y)
    with pytest.raises(qg.ModelError, match=f"PyTorch module {type(hooked).__name__}: a forward hook"):
        qg.load(hooked)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("wrap", [torch.jit.script, lambda module: torch.jit.trace(module, torch.zeros(2, 3, 3))])
def test_torchscript_is_refused_and_its_weights_are_not(wrap):
    gru = nn.GRU(3, 5)
    scripted = wrap(gru)
    with pytest.raises(
        qg.ModelError, match=r"TorchScript; give the nn.Module .*qg.load\(module.state_dict\(\), chain="
    ):
        qg.load(scripted)
    assert_equal(gru.double(), qg.load(scripted.state_dict()), steps_first, steps_first)


@pytest.mark.filterwarnings("error")
def test_graph_modules():
    """Those of symbolic_trace are modules as others are; those of torch.export have lost their modules."""
    module = seed(nn.Sequential(nn.GRU(3, 5, batch_first=True), Last(), nn.Linear(5, 2)))
    assert_equal(module, qg.load(torch.fx.symbolic_trace(module)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (torch.zeros(2, 6, 3).double(),))
        exported = program.module()
    with pytest.raises(qg.ModelError, match=r"GraphModule: made by torch.export; give the nn.Module that was exported"):
        qg.load(exported)
    with pytest.raises(qg.ModelError, match=r"ExportedProgram: .*give the nn.Module that was exported"):
        qg.load(program)
    assert_equal(module, qg.load(program.state_dict, chain="0 last 2"))
    with pytest.raises(qg.ModelError, match=r"net.pt2: a program of torch.export; give the nn.Module"):
        qg.load("net.pt2")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_precisions(kind):
    """Of the weights as they are; what PyTorch would round on the way is said."""
    module = seed(EndingNet(**EVERY_STEP)).to(kind)
    model = qg.load(module)
    half = kind in (torch.float16, torch.bfloat16)
    note = f"PyTorch computes in {str(kind)[6:]}, the import in full precision: outputs differ by that"
    assert (note in model.notes) == half
    assert_equal(copy.deepcopy(module).double(), model)


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_autocast_is_noted(device):
    class Cast(EndingNet):
        def forward(self, x):
            with torch.autocast(device, dtype=torch.bfloat16):
                return super().forward(x)

    module = seed(Cast(**EVERY_STEP))
    model = qg.load(module)
    assert model.notes[-1] == "PyTorch computes in autocast, the import in full precision: outputs differ by that"
    assert_equal(module, model)  # in float64, which autocast leaves alone
    assert len(qg.load(seed(EndingNet(**EVERY_STEP))).notes) == 1
