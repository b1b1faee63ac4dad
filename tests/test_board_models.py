"""Models of every kind on every board, 1,000 steps each, bit for bit: what is exported is what is simulated."""

import numpy as np
import oracle
import pytest
from hil_boards import board_or_skip
from strategies import DensePlan, EmbeddingPlan, GruPlan, Plan, from_oracle, random_inputs, random_model

import quantgru as qg
from quantgru.errors import ConfigError
from quantgru.hil.boards import find_boards

AFTER, BEFORE = oracle.RESET_AFTER, oracle.RESET_BEFORE
N_STEPS = 1000

# Each with the kind of its inputs.
PLANS = {
    "one unit": (Plan(1, (1,), (AFTER,)), "random"),
    "three units": (Plan(3, (3,), (BEFORE,), ((1, oracle.TANH),)), "alternating"),
    "no head": (Plan(2, (17,), (BEFORE,), last_step=1), "random"),
    "stack": (Plan(3, (9, 5), (AFTER, BEFORE), ((4, oracle.RELU), (2, oracle.SIGMOID))), "random"),
    "extreme": (Plan(5, (8,), (AFTER,), ((3, 0), (8, 1), (9, 2), (2, 3)), 0, "extreme", "any", "limit"), "lowest"),
    "large": (Plan(10, (154,), (AFTER,), ((12, oracle.LINEAR),)), "random"),
    "relu": (
        Plan(3, layers=(GruPlan(9, AFTER, oracle.GATE_HARD_SIGMOID, oracle.CANDIDATE_RELU, 9),)),
        "random",
    ),
    "linear": (
        Plan(2, layers=(GruPlan(7, BEFORE, oracle.GATE_SIGMOID, oracle.CANDIDATE_LINEAR, 10, True), DensePlan(3, 3))),
        "highest",
    ),
    "sigmoid, then hard_tanh": (
        Plan(
            2,
            layers=(
                GruPlan(8, BEFORE, oracle.GATE_HARD_SIGMOID, oracle.CANDIDATE_SIGMOID, 15, True),
                GruPlan(3, AFTER, oracle.GATE_SIGMOID, oracle.CANDIDATE_HARD_TANH, 14),
            ),
        ),
        "random",
    ),
    "embedding": (Plan(1, layers=(EmbeddingPlan(11, 4), DensePlan(6, 1), GruPlan(9, AFTER), DensePlan(5))), "tokens"),
    "slow": (Plan(1, (17,), (AFTER,), (), 0, "small", "useful", "slow"), "small"),
}


# The emulator of the RP2040 is no package of Debian, and not asked for.
BOARDS = [name for name, board in find_boards().items() if name != "rp2040" or not board.missing()]


TOO_LARGE = (
    r"^board atmega\w+: model '.*' has [\d,]+ bytes of constants, the largest array [\d,]+; an AVR reads 64,000 in"
)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("name", PLANS)
def test_every_step_is_equal(name: str, board: str) -> None:
    plan, kind = PLANS[name]
    model = from_oracle(random_model(plan, seed=1))
    core = board_or_skip(board).core
    raw = random_inputs(kind, N_STEPS, plan.n_inputs, seed=2)
    raw = np.maximum(raw, 0) if kind == "tokens" else np.array(raw)
    x = raw * 2.0**-model.input_fraction_bits  # exact, and exact again when it is quantized
    if core.startswith("atmega") and name == "large":
        with pytest.raises(ConfigError, match=TOO_LARGE):
            qg.run_on_board(model, x[None], board=board, by="digests")
        return
    result = qg.run_on_board(model, x[None], board=board, by="digests")  # of all states and outputs of every step
    assert result.equal, str(result.first_difference)
    assert result.steps == N_STEPS
    assert (result.stack_bytes or 0) <= find_boards()[board].stack_bytes


@pytest.mark.parametrize(
    ("plan", "region"),
    [(Plan(1100, (3,), (AFTER,)), "data"), (Plan(150, (60,), (AFTER,)), "text by [0-9]{2},[0-9]{3} bytes and data")],
    ids=["RAM", "flash"],
)
def test_a_model_too_large_for_the_memory_of_a_board(plan: Plan, region: str) -> None:
    board_or_skip("atmega328p")
    model = from_oracle(random_model(plan, seed=1))
    too_large = f"^board atmega328p: the program does not fit into memory region {region} of the linker script; see `q"
    with pytest.raises(ConfigError, match=too_large):
        qg.run_on_board(model, np.zeros((1, 1, plan.n_inputs)), board="atmega328p")


def test_a_model_that_leaves_too_little_for_the_stack() -> None:
    board_or_skip("atmega328p")
    model = from_oracle(random_model(Plan(150, (3,), (AFTER,)), seed=1))
    with pytest.raises(
        ConfigError, match=r"^board atmega328p: variables take 1,[0-9]{3} of 2,048 bytes of RAM, and .* needs 640 for"
    ):
        qg.run_on_board(model, np.zeros((1, 1, 150)), board="atmega328p")
