"""State dicts of PyTorch modules, as mappings and as files. Expected values are PyTorch's own."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from state_dicts import close

import quantgru as qg
from quantgru.errors import QuantgruWarning
from quantgru.model import Bidirectional, Gru

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install quantgru[torch]")

from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402


class Net(nn.Module):
    """Random, in float64."""

    def __init__(self, n_layers, bidirectional, bias, seed):
        super().__init__()
        self.encoder = nn.ModuleDict({"gru": nn.GRU(3, 4, n_layers, bias, True, 0.0, bidirectional)})
        self.fc = nn.Linear(4 * (1 + bidirectional), 2, bias=bias)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.double().parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x, final):
        out, h = self.encoder["gru"](x)
        if not final:
            return torch.tanh(self.fc(out))
        return self.fc(torch.cat((h[-2], h[-1]), dim=1) if self.encoder["gru"].bidirectional else h[-1])


@settings(max_examples=60)
@given(
    st.integers(1, 3),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.sampled_from(["mapping", "zip", "legacy", "protocol 4", "safetensors", "checkpoint"]),
    st.integers(0, 1000),
)
def test_the_cross_product(tmp_path_factory, n_layers, flags, kind, seed):
    bidirectional, bias, final = flags
    net = Net(n_layers, bidirectional, bias, seed)
    x = np.random.default_rng(seed).normal(size=(3, 5, 3))
    with torch.no_grad():
        expected = net(torch.from_numpy(x), final).numpy()
    source = saved(net.state_dict(), kind, tmp_path_factory.mktemp("files"))
    model = qg.load(source, chain="encoder.gru final fc" if final else "encoder.gru fc tanh")
    assert close(model.run(x), expected)
    recurrent = [layer for layer in model.layers if isinstance(layer, (Gru, Bidirectional))]
    assert len(recurrent) == n_layers
    assert model.layers[0].name == ("encoder.gru" if n_layers == 1 else "encoder.gru.0")


def saved(state, kind, folder):
    if kind == "mapping":
        return state
    if kind == "safetensors":
        from safetensors.torch import save_file

        save_file(state, folder / "net.safetensors")
        return folder / "net.safetensors"
    options = {"legacy": {"_use_new_zipfile_serialization": False}, "protocol 4": {"pickle_protocol": 4}}
    content = {"state_dict": state, "args": [1, 2.5, None, True, "text"]} if kind == "checkpoint" else state
    torch.save(content, folder / "net.pth", **options.get(kind, {}))
    return folder / "net.pth"


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("wrap", ["mapping", "zip", "legacy", "safetensors"])
def test_types(kind, wrap, tmp_path):
    gru = nn.GRU(3, 4).to(kind)
    model = qg.load(saved(gru.state_dict(), wrap, tmp_path))
    expected = gru.double()
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    with torch.no_grad():
        y = expected(torch.from_numpy(x.swapaxes(0, 1).copy()))[0].numpy().swapaxes(0, 1)
    assert close(model.run(x), y)


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_of_any_kind_of_view(legacy, tmp_path):
    """What torch.load gives, and what the reader gives."""
    from quantgru.importers.pytorch_file import read_pt

    base = torch.arange(120.0, dtype=torch.float64)
    tensors = {
        "whole": base,
        "matrix": base.view(10, 12),
        "transposed": base.view(10, 12).t(),
        "part": base.view(10, 12)[2:7:2, 1:9:3],
        "three": base.view(2, 3, 20).permute(2, 0, 1)[5:],
        "number": base[17],
        "empty": base[:0],
        "empty matrix": torch.empty(3, 0),
        "one row": base.view(10, 12)[3:4].t(),
        "int64": torch.arange(5),
        "int32": torch.arange(5, dtype=torch.int32)[1::2],
        "int16": torch.arange(-5, 5, dtype=torch.int16),
        "int8": torch.arange(-5, 5, dtype=torch.int8),
        "uint8": torch.arange(5, dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "float16": torch.tensor([1.5, -3e-5]).half(),
        "bfloat16": torch.tensor([1.5, -3e-5, 3e38]).bfloat16(),
        "parameter": nn.Parameter(base[3:9]),
    }
    path = tmp_path / "tensors.pt"
    torch.save(tensors, path, _use_new_zipfile_serialization=not legacy)
    file = read_pt("file", path)
    found = file.arrays(file.value)
    assert found.keys() == tensors.keys()
    for name, tensor in torch.load(path, weights_only=True).items():
        expected = tensor.detach()
        expected = (expected.float() if expected.dtype == torch.bfloat16 else expected).numpy()
        assert found[name].dtype == expected.dtype, name
        assert np.array_equal(found[name], expected), name


def test_tensors_on_no_device_and_other_objects():
    state = nn.GRU(2, 3).state_dict()
    with pytest.raises(qg.ModelError, match=r"'weight_ih_l0' is no array .*give tensors or arrays"):
        qg.load(state | {"weight_ih_l0": torch.empty(9, 2, device="meta")})
    with pytest.raises(qg.ModelError, match=r"parameter 'bias_hh_l0' holds nan at \[1\]"):
        qg.load(state | {"bias_hh_l0": torch.tensor([0.0, float("nan")] + [0.0] * 7)})
    with pytest.raises(qg.ModelError, match="weight_ih_l0 of type object"):
        qg.load(state | {"weight_ih_l0": np.array([["a", None]] * 9, dtype=object)})


REPARAMETRISED = {
    "parametrized": (
        lambda net: nn.utils.parametrizations.weight_norm(net["gru"], "weight_hh_l0"),
        r"'gru' \(weight_hh_l0 is parametrized; save it after .*remove_parametrizations\(module, 'weight_hh_l0'",
    ),
    "parametrized dense": (
        lambda net: nn.utils.parametrizations.spectral_norm(net["fc"]),
        r"'fc' \(weight is parametrized; save it after parametrize.remove_parametrizations\(module, 'weight'\)",
    ),
    "weight_norm": (
        lambda net: nn.utils.weight_norm(net["gru"], "weight_ih_l0"),
        r"'gru' \(weight_ih_l0 is stored as weight_ih_l0_g and weight_ih_l0_v by weight_norm; .*remove_weight_norm",
    ),
    "weight_norm of a dense layer": (
        lambda net: nn.utils.weight_norm(net["fc"]),
        r"'fc' \(weight is stored as weight_g and weight_v by weight_norm; save it after remove_weight_norm",
    ),
    "spectral_norm": (
        lambda net: nn.utils.spectral_norm(net["fc"]),
        r"'fc' \(weight is stored as weight_orig and weight_u by spectral_norm; save it after remove_spectral_norm",
    ),
    "pruned": (
        lambda net: prune.l1_unstructured(net["gru"], "weight_hh_l0", 0.5),
        r"'gru' \(weight_hh_l0 is stored as weight_hh_l0_orig and weight_hh_l0_mask by pruning; .*prune.remove",
    ),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("case", REPARAMETRISED)
def test_weights_that_are_computed_are_named(case):
    change, message = REPARAMETRISED[case]
    net = nn.ModuleDict({"gru": nn.GRU(2, 3), "fc": nn.Linear(3, 2)})
    change(net)
    with pytest.raises(qg.ModelError, match=message):
        qg.load(net.state_dict())
    with pytest.raises(qg.ModelError, match=r"module '(gru|fc)': weight.*; save it after"):
        qg.load(net.state_dict(), chain="gru fc")


def test_parametrized_weights_of_a_gru_alone():
    gru = nn.utils.parametrizations.weight_norm(nn.GRU(2, 3), "weight_hh_l0")
    with pytest.raises(qg.ModelError, match=r"'gru' \(weight_hh_l0 is parametrized"):
        qg.load(gru.state_dict())


def test_a_layer_norm_in_a_chain():
    net = nn.ModuleDict({"gru": nn.GRU(2, 3), "norm": nn.LayerNorm(3)})
    with pytest.raises(qg.ModelError, match="module 'norm': a LayerNorm or the like of 3 features; supported is"):
        qg.load(net.state_dict(), chain="gru norm")


@pytest.mark.parametrize("name", ["net.ckpt", "pytorch_model.bin", "net.pth.tar", "net.PTH"])
def test_other_names_of_files(name, tmp_path):
    """What a file holds decides, not its name."""
    gru = nn.GRU(2, 3)
    checkpoint = {"epoch": 2, "net": gru.state_dict(), "optimizer": torch.optim.Adam(gru.parameters()).state_dict()}
    torch.save(checkpoint, tmp_path / name)
    model = qg.load(tmp_path / name)
    assert model.name == name.partition(".")[0]
    assert np.array_equal(model.layers[0].input_weights, qg.load(gru).layers[0].input_weights)
    torch.save({"net": gru.state_dict(), "ema": nn.GRU(2, 3).state_dict()}, tmp_path / name)
    with pytest.warns(QuantgruWarning, match="several state dicts: that under 'net' is taken, not 'ema'"):
        model = qg.load(tmp_path / name)
    assert np.array_equal(model.layers[0].input_weights, qg.load(gru).layers[0].input_weights)
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(qg.ModelError, match=f"PyTorch file .*{name}: "):
        qg.load(tmp_path / name)


def test_the_state_dict_of_a_module_is_the_module():
    net = nn.GRU(3, 4, 2, bidirectional=True)
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    assert close(qg.load(net.state_dict()).run(x), qg.load(net).run(x))
