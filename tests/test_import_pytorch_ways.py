"""The ways to call a PyTorch module: with and without its states, step by step, on inputs of every size.

Expected values are PyTorch's own. A user gives the states that a call of one step returns to the next call.
"""

from __future__ import annotations

import numpy as np
import pytest

import quantgru as qg

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install quantgru[torch]")

from pytorch_nets import TOLERANCE, UNITS, assert_refused, kinds, seed  # noqa: E402
from torch import nn  # noqa: E402

INPUTS = 4
RETURNED = "the states that it returns "
ENDS = RETURNED + "are those of FloatModel.final_states"
LEFT_OUT = RETURNED + "are left out: FloatModel.final_states gives those of every layer"


class Parts(nn.Module):
    """`steps(self, x, *states)` is forward(), of which the subclasses have the arguments."""

    def __init__(self, steps):
        super().__init__()
        self.cell = nn.GRUCell(INPUTS, UNITS)
        self.second = nn.GRUCell(UNITS, UNITS)
        self.gru = nn.GRU(INPUTS, UNITS, batch_first=True)
        self.upper = nn.GRU(UNITS, UNITS, batch_first=True)
        self.two = nn.GRU(INPUTS, UNITS, 2, batch_first=True)
        self.fc = nn.Linear(UNITS, 3)
        self.start = nn.Parameter(torch.zeros(1, 1, UNITS))
        self.steps = steps
        seed(self)

    def forward(self, x):
        return self.steps(self, x)


class WithState(Parts):
    def forward(self, x, h):
        return self.steps(self, x, h)


class WithDefault(Parts):
    def forward(self, x, h=None):
        return self.steps(self, x, h)


class WithStates(Parts):
    def forward(self, x, a, b):
        return self.steps(self, x, a, b)


class WithDefaults(Parts):
    def forward(self, x, a=None, b=None):
        return self.steps(self, x, a, b)


def random(*shape):
    return np.random.default_rng(len(shape)).uniform(-1, 1, shape)


def call(net, x, *states):
    """What forward() returns, as arrays; torch.zeros() and the like give its type."""
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            returned = net(torch.from_numpy(x.copy()), *(torch.from_numpy(state.copy()) for state in states))
    finally:
        torch.set_default_dtype(torch.float32)
    parts = returned if isinstance(returned, tuple) else (returned,)
    return [np.asarray(part) for part in parts]


def run_steps(net, x, *states):
    """The outputs of all steps."""
    outputs = []
    for step in x.swapaxes(0, 1):
        output, *states = call(net, step, *states)
        outputs.append(output)
    return np.stack(outputs, axis=1)


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


# ---- one step a call -----------------------------------------------------------------------------------------------


def of_two(change):
    def steps(self, x, h):
        out, h = self.two(x.unsqueeze(1), h)
        return self.fc(out[:, 0]), change(h)

    return steps


def stacked(axis):
    def steps(self, x, h):
        first = self.cell(x, h[0])
        second = self.second(first, h[1])
        return self.fc(second), torch.stack((first, second), axis)

    return steps


OTHER_STATES = {
    "exchanged layers": of_two(lambda h: h[[1, 0]]),
    "exchanged features": of_two(lambda h: h[..., [1, 0, 2, 3, 4]]),
    "the first layer alone": of_two(lambda h: h[0]),
    "the last layer twice": of_two(lambda h: h[[1, 1]]),
    "joined on the second axis": stacked(1),
    "joined on the last axis": stacked(-1),
}


@pytest.mark.parametrize("case", OTHER_STATES)
def test_a_step_that_returns_other_states_is_refused(case):
    message = (
        "output of WithState: one step, which does not return every state that it is given, a step later and in the "
        "same order; return the output and then the states"
    )
    assert_refused(WithState(OTHER_STATES[case]), f"^{message}$")


def test_a_cell_that_returns_its_state_twice():
    def steps(self, x, h):
        h = self.cell(x, h)
        return h, h

    net = WithState(steps)
    model = qg.load(net)
    x, h = random(3, 6, INPUTS), random(3, UNITS)
    assert_close(model.run(x, initial_states=[h]), run_steps(net, x, h))


def test_a_step_that_returns_the_state_before_it_is_refused():
    assert_refused(WithState(lambda self, x, h: (self.cell(x, h), h)), "several tensors; .*the output and then the sta")


def starting_at(start):
    def steps(self, x, h):
        h = self.cell(x, start(self, x) if h is None else h)
        return self.fc(h), h

    return steps


STARTS = {
    "none": lambda self, x: None,
    "zero": lambda self, x: torch.zeros(x.size(0), UNITS),
    "learned": lambda self, x: self.start[0].expand(x.size(0), -1),
    "computed": lambda self, x: self.second(torch.ones(x.size(0), UNITS)),
}


@pytest.mark.parametrize("start", STARTS)
def test_a_step_called_without_its_state(start):
    net = WithDefault(starting_at(STARTS[start]))
    model = qg.load(net)
    x, h = random(3, 6, INPUTS), random(3, UNITS)
    assert_close(model.run(x), run_steps(net, x))
    assert_close(model.run(x, initial_states=[h]), run_steps(net, x, h))


def test_a_start_that_depends_on_the_input_is_refused():
    net = WithDefault(starting_at(lambda self, x: x.mean(1, keepdim=True).expand(-1, UNITS)))
    assert_refused(net, r"called without h, it starts at other states than zero or a constant, .*forward\(self, x, h\)")


def test_states_in_another_order_than_the_layers():
    def steps(self, x, a, b):
        b = self.cell(x, b)
        a = self.second(b, a)
        return self.fc(a), a, b

    net = WithStates(steps)
    model = qg.load(net)
    assert model.notes[-3:] == (
        "argument 'a' is initial_states[1] of FloatModel.run",
        "argument 'b' is initial_states[0] of FloatModel.run",
        RETURNED + "are, in this order, those of FloatModel.final_states[1, 0]",
    )
    x, a, b = random(3, 6, INPUTS), random(3, UNITS), random(3, UNITS) / 2
    assert_close(model.run(x, initial_states=[b, a]), run_steps(net, x, a, b))


# ---- whole sequences -----------------------------------------------------------------------------------------------


def returning(change):
    def steps(self, x, h=None):
        out, h = self.two(x, h)
        return self.fc(out), change(h)

    return steps


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda h: h, ENDS),
        (lambda h: h[[1, 0]], RETURNED + "are, in this order, those of FloatModel.final_states[1, 0]"),
        (lambda h: h[0], RETURNED + "are, in this order, those of FloatModel.final_states[0]"),
        (lambda h: h[..., [1, 0, 2, 3, 4]], LEFT_OUT),
    ],
)
def test_states_that_are_returned(change, note):
    net = Parts(returning(change))
    model = qg.load(net)
    assert model.notes[-1] == note
    x = random(3, 6, INPUTS)
    output, states = call(net, x)
    assert_close(model.run(x), output)
    order = {2: [1, 0], 1: [0]} if "order" in note else {2: [0, 1]}
    if note != LEFT_OUT:
        states = states.reshape(-1, 3, UNITS)
        assert_close([model.final_states(x)[i] for i in order[len(states)]], states)


def test_the_first_state_of_a_loop_is_no_final_state():
    def steps(self, x):
        h, states = None, []
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
            states.append(h)
        return self.fc(torch.stack(states, 1)), states[0]

    assert qg.load(Parts(steps)).notes[-1] == LEFT_OUT


def test_states_given_in_another_order():
    def steps(self, x, a, b):
        out, b = self.gru(x, b)
        out, a = self.upper(out, a)
        return self.fc(out), a, b

    for kind in (WithStates, WithDefaults):
        net = kind(steps)
        del net.cell, net.second
        model = qg.load(net)
        assert "argument 'a' is initial_states[1] of FloatModel.run" in model.notes
        assert "argument 'b' is initial_states[0] of FloatModel.run" in model.notes
        x, a, b = random(3, 6, INPUTS), random(1, 3, UNITS), random(1, 3, UNITS) / 2
        output, *states = call(net, x, a, b)
        assert_close(model.run(x, initial_states=[b[0], a[0]]), output)
        assert_close(model.final_states(x, initial_states=[b[0], a[0]])[::-1], np.concatenate(states))


def given(change):
    return lambda self, x, h: self.gru(x, h if h is None else change(self, h))[0]


@pytest.mark.parametrize("change", [lambda self, h: h / 2, lambda self, h: h.flip(2), lambda self, h: None])
def test_an_optional_state_that_is_changed_is_said_to_be_left_out(change):
    net = WithDefault(given(change))
    model = qg.load(net)
    assert model.notes[-1] == "argument 'h' is left at its default, None"
    assert_close(model.run(x := random(3, 6, INPUTS)), call(net, x)[0])


def test_an_optional_state_with_a_learned_default():
    def steps(self, x, h):
        return self.gru(x, self.start.expand(1, x.size(0), -1) if h is None else h)[0]

    net = WithDefault(steps)
    model = qg.load(net)
    assert model.notes[-1] == "argument 'h' is initial_states of FloatModel.run"
    x, h = random(3, 6, INPUTS), random(1, 3, UNITS)
    assert_close(model.run(x), call(net, x)[0])
    assert_close(model.run(x, initial_states=list(h)), call(net, x, h)[0])


def test_an_optional_state_beside_another_argument():
    def steps(self, x, a, b):
        out, a = self.gru(x, a)
        return self.fc(out if b is None else out * b), a

    model = qg.load(WithDefaults(steps))
    assert model.notes[1:] == (
        "argument 'b' is left at its default, None",
        "argument 'a' is initial_states of FloatModel.run",
        ENDS,
    )


def test_a_state_that_is_kept_from_one_call_to_the_next():
    class Keeping(Parts):
        h = None

        def forward(self, x):
            out, self.h = self.gru(x, self.h)
            return out

    class KeepingStep(Keeping):
        def forward(self, x):
            self.h = self.cell(x, self.h)
            return self.h

    class KeepingInside(Parts):
        states = {}  # noqa: RUF012

        def forward(self, x, h=None):
            out, self.states["h"] = self.gru(x, self.states.get("h"))
            return out

    assert_refused(KeepingInside(None), "gets what an earlier call of forward.. has left; .*leave it out")
    assert_refused(Keeping(None), "PyTorch module Keeping: 'h' is kept from one call of forward.. to the next")
    assert_refused(KeepingStep(None), "a cell reads one step, of a loop or of forward")


# ---- inputs of every size ------------------------------------------------------------------------------------------


def states_of(self, x, numbers=lambda n: range(n)):
    h, states = None, []
    for t in numbers(x.size(1)):
        h = self.cell(x[:, t], h)
        states.append(h)
    return states


SIZES = {
    "the last 900 steps": (lambda self, x: torch.stack(states_of(self, x)[-900:], 1), "joins others than all steps"),
    "the first 900 steps": (lambda self, x: states_of(self, x, lambda n: list(range(n))[:900])[-1], "last step"),
    "step 40 twice": (
        lambda self, x: states_of(self, x, lambda n: sorted([*range(n), *[40] * (int(n) > 40)]))[-1],
        "reads another state than it gave at the step before",
    ),
    "another one for one step": (
        lambda self, x: (states := states_of(self, x))[-1] * (1 if len(states) > 1 else 2),
        "^PyTorch module Parts on 3 sequences of 1 step: its import differs by",
    ),
    "the first of two steps": (
        lambda self, x: (states := states_of(self, x))[-1 if len(states) != 2 else 0],
        "its import differs by",
    ),
    "many steps": (
        lambda self, x: self.fc(self.gru(x)[0]) * (1.0 if int(x.size(1)) < 600 else 2.0),
        "computes something else where sequences or steps are many",
    ),
    "one sequence": (
        lambda self, x: self.fc(self.gru(x)[0]) * (1.0 if int(x.size(0)) > 1 else 2.0),
        "^PyTorch module Parts on 1 sequence of 1 step: its import differs by",
    ),
    "a step and features": (
        lambda self, x: [self.cell(x[:, t, :4]) for t in range(x.size(1))],
        r"index \[:, 0, :4\]: takes a step and a part of it at once; .*write x\[:, t\]\[:, :n\]",
    ),
}


@pytest.mark.parametrize("case", SIZES)
def test_what_depends_on_the_sizes_is_refused(case):
    steps, message = SIZES[case]
    assert_refused(Parts(steps), message)


@pytest.mark.parametrize(
    "steps",
    [
        lambda self, x: self.gru(x.squeeze(1))[0],
        lambda self, x: self.gru(x.squeeze())[0],
        lambda self, x: self.fc(self.gru(x)[0].squeeze()[:, -1]),
    ],
)
def test_a_squeeze_that_takes_an_axis_that_is_needed(steps):
    message = (
        "^PyTorch module Parts on 3 sequences of 1 step: method 'squeeze'.* drops the axis of sequences or steps where "
        r"there is only one, and so gives something else; .*as in squeeze\(-1\)$"
    )
    assert_refused(Parts(steps), message)


def test_a_squeeze_at_the_end():
    """The numbers are the same, whether they have all their axes or not."""
    net = Parts(lambda self, x: self.fc(self.gru(x)[1].squeeze()))
    model = qg.load(net)
    assert kinds(model) == ["Gru", "Dense"]
    for shape in ((1, 1), (3, 1), (1, 5), (3, 5)):
        x = random(*shape, INPUTS)
        assert_close(model.run(x), call(net, x)[0].reshape(shape[0], 3))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda x: torch.clamp_(x, -1000, 1000), "clamp_"),
        (lambda x: torch.clamp(x, -1000, 1000, out=x), "clamp"),
        (lambda x: nn.functional.hardtanh_(x, -1000, 1000), "hardtanh_"),
        (torch.nan_to_num_, "nan_to_num_"),
    ],
)
def test_a_function_whose_result_nobody_reads_changes_its_input(change, name):
    """Beyond the inputs that are compared."""
    net = Parts(lambda self, x: (change(x), self.fc(self.gru(x)[0]))[1])
    assert_refused(net, f"^function '{name}': changes a tensor in place; .*use its result")


def test_loading_takes_one_thread_and_gives_the_others_back():
    """With all of them, a load can take seconds on a machine that has other work."""
    found = []

    def steps(self, x):
        found.append(torch.get_num_threads())
        return self.gru(x)[0]

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        qg.load(Parts(steps))
        assert set(found) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (lambda self, x: self.gru(x[:, ::2])[0], r"^index \[:, ::2\]: takes some of the steps; .*give the model all"),
        (lambda self, x: self.fc(max(*self.gru(x))), r"`out, h_n = gru\(x\)` in place of \*gru\(x\)$"),
    ],
)
def test_refusals_say_what_was_written(steps, message):
    assert_refused(Parts(steps), message)
