"""Ways to hold a board against the simulator: whichever is taken, a wrong step is found where it arose."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import oracle
import pytest
from hil_boards import PATIENCE, build_edited, build_model, replace_in, running
from hil_models import Case, make_case
from strategies import DensePlan, GruPlan, Plan, from_oracle, random_model

import quantgru as qg
from quantgru.errors import ConfigError, DeviceError
from quantgru.hil.compare import Comparison, compare, compare_states
from quantgru.hil.generator import Generator
from quantgru.hil.images import Image
from quantgru.hil.session import Session
from quantgru.hil.ways import ByDigests, ByOutputs, BySeeds

LENGTHS = (300, 1, 40)
GENERATORS = [Generator(7, 0), Generator(8, 3), Generator(9, 2)]


@pytest.fixture(scope="module")
def case() -> Case:
    """Inputs are those that the board generates, so that all ways can run them."""
    values = [g.inputs(n, 3).tolist() for g, n in zip(GENERATORS, LENGTHS, strict=True)]
    return make_case(lengths=LENGTHS, rows=values)


WAYS: dict[str, Callable[[Session, Case], Comparison]] = {
    "outputs": lambda session, case: compare(session, case.model, case.inputs, case.expected, ByOutputs()),
    "digests": lambda session, case: compare(session, case.model, case.inputs, case.expected, ByDigests()),
    "seeds": lambda session, case: compare(session, case.model, case.inputs, case.expected, BySeeds(GENERATORS)),
    "states": lambda session, case: compare_states(session, case.model, [(case.inputs, case.expected)], sum(LENGTHS)),
}
each_way = pytest.mark.parametrize("way", WAYS)


def run(case: Case, image: Image, way: str) -> Comparison:
    with running(image) as line:
        session = Session(line, PATIENCE)
        session.open(case.model)
        return WAYS[way](session, case)


@each_way
def test_all_steps_are_equal(case: Case, way: str) -> None:
    found = run(case, build_model(case.model), way)
    assert found.equal, str(found.first_difference)
    assert found.steps == found.ticks.n_steps == sum(LENGTHS)


def wrong_at(count: int, fault: str) -> Callable[[Path, Path], None]:
    """An edit: firmware that does `fault` to the state after as many steps since the last reset."""

    def edit(firmware: Path, exported: Path) -> None:
        code = exported / "model.c"
        replace_in(code, '#include "model.h"\n', '#include "model.h"\nstatic unsigned steps_done, resets;\n')
        replace_in(code, "    qg_reset(", "    steps_done = 0;\n    ++resets;\n    qg_reset(")
        step = "inputs, state->h, state->residual, &arrays);\n"
        fault_then = f"    if (++steps_done == {count} && resets > 0) {{\n        {fault}\n    }}\n"
        replace_in(code, step, step + fault_then)

    return edit


@each_way
@pytest.mark.parametrize("step", [0, 1, 17, 299])
def test_a_wrong_step_is_found_where_it_arose(case: Case, way: str, step: int) -> None:
    found = run(case, build_edited(case.model, wrong_at(step + 1, "state->h[4] ^= 1;")), way)
    difference = found.first_difference
    assert difference is not None
    assert (difference.sequence, difference.step, difference.layer) == (0, step, "gru_0")
    assert (difference.gate, difference.unit, difference.format) == ("h", 4, "s16f15")
    assert difference.simulator == case.expected.trace(0, step).h[4]
    assert difference.board == difference.simulator ^ 1
    assert found.steps == step + 1
    assert not found.equal


@pytest.mark.parametrize(
    ("wrong", "layer", "gate", "or_layers"),
    [("before", "gru_0", "u", ("dense_0",)), ("first of the head", "dense_2", "output", ("dense_1",))],
)
def test_a_wrong_dense_layer_is_among_those_that_are_named(
    wrong: str, layer: str, gate: str, or_layers: tuple[str, ...]
) -> None:
    """A board tells the numbers of GRU layers and the outputs: not those of a dense layer in front."""
    rows = {"before": 6, "first of the head": 5}[wrong]
    plan = Plan(
        3, layers=(DensePlan(6, oracle.TANH), GruPlan(4, oracle.RESET_AFTER), DensePlan(5, oracle.TANH), DensePlan(2))
    )
    case = make_case(plan, lengths=(40,))

    def edit(firmware: Path, exported: Path) -> None:
        code = exported / "quantgru" / "src" / "qg_dense_layer.c"
        right = "out[row + i] = dense->activation(sums[i]);"
        replace_in(
            code, right, f"out[row + i] = (int16_t)(dense->activation(sums[i]) ^ (n_rows == {rows} ? 1024 : 0));"
        )

    difference = run(case, build_edited(case.model, edit), "outputs").first_difference
    assert difference is not None
    assert (difference.layer, difference.gate, difference.or_layers) == (layer, gate, or_layers)
    assert f"layer {layer} (wrong itself, or reads what is: {or_layers[0]})" in str(difference)


@pytest.mark.parametrize(("way", "gate"), [("outputs", "check value"), ("digests", "digest"), ("seeds", "digest")])
def test_a_board_that_is_wrong_once(case: Case, way: str, gate: str) -> None:
    """Right when it is asked again. Resets: at power-on, when the session opens, before the first sequence."""
    image = build_edited(case.model, wrong_at(18, "state->h[4] ^= resets == 3;"))
    difference = run(case, image, way).first_difference
    assert difference is not None
    assert (difference.sequence, difference.gate) == (0, gate)
    assert difference.step <= 17
    assert "the board does not compute the same each time" in str(difference)


def test_a_board_whose_stack_is_too_small(case: Case) -> None:
    """The host does not know its stack; here, it says that one step used all of it."""

    def edit(firmware: Path, exported: Path) -> None:
        replace_in(firmware / "harness" / "stack.c", "return 0;", "return 512;")

    with (
        running(build_edited(case.model, edit)) as line,
        pytest.raises(
            DeviceError, match="the board's stack is too small: one step used all its 512 bytes; give it more"
        ),
    ):
        Session(line, PATIENCE).open(case.model)


# ---- as a user calls it --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> qg.IntModel:
    return from_oracle(random_model(Plan(3, (16,), (oracle.RESET_AFTER,), ((6, oracle.LINEAR),)), seed=1))


@pytest.mark.parametrize("by", ["outputs", "states", "digests"])
def test_run_on_board(model: qg.IntModel, by: str) -> None:
    x = np.random.default_rng(3).normal(size=(2, 20, 3))
    result = qg.run_on_board(model, x, board="host", by=by)
    assert result.equal
    assert (result.steps, result.total_steps) == (40, 40)
    assert (result.step_cost.median is None) == (by == "digests")
    assert 0 < result.step_cost.minimum <= result.step_cost.mean <= result.step_cost.maximum


@pytest.mark.parametrize("board", ["host", "mps2-an386", "atmega328p"])
def test_run_on_inputs_of_the_board(model: qg.IntModel, board: str) -> None:
    steps = []
    result = qg.run_seeded_on_board(model, 2100, seed=2**32 - 1, board=board, progress=steps.append)
    assert result.equal
    assert result.steps == sum(steps) == 2100
    assert (result.stack_bytes is None) == (board == "host")


def test_what_cannot_be_run(model: qg.IntModel) -> None:
    x = np.zeros((1, 2, 3))
    with pytest.raises(ConfigError, match="by='all', expected one of outputs, states, digests"):
        qg.run_on_board(model, x, board="host", by="all")
    with pytest.raises(ConfigError, match=r"0 steps, expected 1 \.\.\. 100000000; seeds give other ones"):
        qg.run_seeded_on_board(model, 0, board="host")
    with pytest.raises(ConfigError, match=r"seed -1, expected 0 \.\.\. 4294967295"):
        qg.run_seeded_on_board(model, 5, seed=-1, board="host")
    with pytest.raises(ConfigError, match="give either a board, by name, or a port"):
        qg.run_seeded_on_board(model, 5)
