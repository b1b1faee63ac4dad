"""Writes the committed test vectors: arguments and results of every rule of SPEC.md, as the oracle computes them.

    python tools/make_vectors.py            writes tests/vectors/*.json
    python tools/make_vectors.py --check    says which files would change, and exits with 1 if one would

functions.json holds [arguments, result] of each function by rule; model_*.json a whole model with its inputs and all
that each step computes, or the run of a whole sequence. Same oracle, same bytes.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import oracle  # noqa: E402 (lives in tests/)
from committed_vectors import VECTORS, model_vector  # noqa: E402
from strategies import (  # noqa: E402
    REVERSE,
    BidirectionalPlan,
    DensePlan,
    EmbeddingPlan,
    GruPlan,
    Plan,
    random_inputs,
    random_model,
)

S32_EDGES = (-(2**31), -(2**31) + 1, -(2**16) - 1, -(2**16), -32769, -32768, -3, -2, -1, 0, 1, 2, 3, 32767, 32768)
S32_EDGES += (2**16 - 1, 2**16, 2**30 - 1, 2**30, 2**31 - 1)
S16_EDGES = (-32768, -32767, -16384, -3, -2, -1, 0, 1, 2, 3, 16384, 32766, 32767)
MERGES = (oracle.MERGE_SUM, oracle.MERGE_MUL, oracle.MERGE_AVE)
M_EDGES = (2**14, 2**14 + 1, 2**15 - 1)
AFTER, BEFORE = oracle.RESET_AFTER, oracle.RESET_BEFORE
SIGMOID, HARD = oracle.GATE_SIGMOID, oracle.GATE_HARD_SIGMOID
TANH, RELU, LINEAR = oracle.CANDIDATE_TANH, oracle.CANDIDATE_RELU, oracle.CANDIDATE_LINEAR
CANDIDATE_SIGMOID, HARD_TANH = oracle.CANDIDATE_SIGMOID, oracle.CANDIDATE_HARD_TANH


def both(layer: GruPlan, merge: int, final: int = 0) -> BidirectionalPlan:
    """The same kind of layer in both directions."""
    return BidirectionalPlan(layer, layer, merge, final)


MODELS: dict[str, tuple[Plan, str]] = {  # plan, kind of inputs
    "one_unit": (Plan(1, (1,), (AFTER,)), "random"),
    "one_unit_reset_before": (Plan(1, (1,), (BEFORE,)), "random"),
    "seven_units": (Plan(2, (7,), (AFTER,), ((3, oracle.LINEAR),)), "random"),
    "eight_units_reset_before": (Plan(3, (8,), (BEFORE,), ((2, oracle.SIGMOID),)), "random"),
    "nine_units_last_step": (
        Plan(4, (9,), (AFTER,), ((12, oracle.RELU), (10, oracle.LINEAR), (3, oracle.TANH)), 1),
        "random",
    ),
    "two_layers": (Plan(3, (8, 3), (AFTER, BEFORE), ((9, oracle.TANH), (2, oracle.SIGMOID))), "random"),
    "three_layers": (Plan(2, (3, 1, 7), (BEFORE, AFTER, AFTER)), "random"),
    "extreme_weights": (Plan(5, (9,), (AFTER,), weights="extreme", scales="any", biases="limit"), "alternating"),
    "extreme_weights_reset_before": (Plan(5, (9,), (BEFORE,), weights="extreme", biases="zero"), "lowest"),
    "seventeen_units": (Plan(8, (17,), (AFTER,), ((10, oracle.LINEAR),)), "highest"),
    "slow": (Plan(1, (3,), (AFTER,), weights="small", biases="slow"), "small"),
    "relu": (Plan(2, layers=(GruPlan(3, BEFORE, HARD, RELU, 10, True), DensePlan(2))), "random"),
    "linear": (
        Plan(2, layers=(GruPlan(3, AFTER, HARD, LINEAR, 12), GruPlan(2, BEFORE, SIGMOID, LINEAR, -3))),
        "random",
    ),
    "sigmoid": (Plan(2, layers=(GruPlan(3, AFTER, SIGMOID, CANDIDATE_SIGMOID, 11, True),)), "random"),
    "hard_tanh": (
        Plan(2, layers=(GruPlan(3, BEFORE, HARD, HARD_TANH), GruPlan(2, AFTER, HARD, HARD_TANH, 13))),
        "random",
    ),
    "tanh_of_a_wide_state": (Plan(1, layers=(GruPlan(3, AFTER, SIGMOID, TANH, 12, True),)), "alternating"),
    "tokens": (Plan(layers=(EmbeddingPlan(5, 3), GruPlan(4))), "tokens"),
    "dense_anywhere": (
        Plan(2, layers=(DensePlan(3, oracle.RELU), GruPlan(2), DensePlan(2, oracle.TANH), GruPlan(3, BEFORE))),
        "random",
    ),
    "from_the_end": (Plan(2, layers=(REVERSE, GruPlan(3), DensePlan(2)), last_step=1), "random"),
    "reversed": (Plan(2, layers=(GruPlan(3), REVERSE, DensePlan(2), GruPlan(2, BEFORE), REVERSE)), "random"),
    "bidirectional_concat": (
        Plan(2, layers=(BidirectionalPlan(GruPlan(3, starts=True), GruPlan(3, BEFORE)), GruPlan(2), DensePlan(2))),
        "random",
    ),
    "bidirectional_sum": (
        Plan(layers=(EmbeddingPlan(6, 2), both(GruPlan(3, AFTER, HARD, LINEAR, -30), oracle.MERGE_SUM))),
        "tokens",
    ),
    "bidirectional_mul": (
        Plan(2, layers=(DensePlan(2), both(GruPlan(3, BEFORE, HARD, RELU, 23), oracle.MERGE_MUL)), last_step=1),
        "random",
    ),
    "bidirectional_ave_final": (
        Plan(
            2,
            layers=(GruPlan(2), both(GruPlan(3), oracle.MERGE_AVE, final=1), DensePlan(2, oracle.SIGMOID)),
            last_step=1,
        ),
        "random",
    ),
    "wide_codes": (Plan(3, layers=(GruPlan(2), DensePlan(2)), weights="wide"), "random"),
}


def spread(edges: tuple[int, ...], low: int, high: int, n: int, rng: random.Random) -> list[int]:
    """The edges that lie in low … high, and n more values, half of them near zero."""
    inner = [rng.randint(max(low, -(2**18)), min(high, 2**18)) for _ in range(n // 2)]
    return [v for v in edges if low <= v <= high] + inner + [rng.randint(low, high) for _ in range(n - n // 2)]


def primitives(rng: random.Random) -> list[dict[str, Any]]:
    """Chapter 2."""
    s32 = spread(S32_EDGES, -(2**31), 2**31 - 1, 20, rng)
    shifts = [(v, s) for v in s32 for s in (1, 2, 15, 30, rng.randint(1, 30)) if v + 2 ** (s - 1) < 2**31]
    requantized = [
        (acc >> k, k, rng.choice((*M_EDGES, rng.randint(2**14, 2**15 - 1))), rng.choice((1, 2, 30, rng.randint(1, 30))))
        for acc in s32
        for k in (0, 1, 15)
    ]
    products = [(b, r) for b in s32 for r in (0, 1, 16384, 32767, 32768, rng.randint(0, 32768))]
    return [
        cases("R1", oracle.round_shift, "v s", shifts),
        cases("R2", oracle.saturate16, "v", [(v,) for v in s32]),
        cases("R3", oracle.mul_shift16, "a m", [(a, m) for a in s32 for m in (0, 1, *M_EDGES)]),
        cases("R4", oracle.requantize, "acc k m s", requantized),
        cases("R5", oracle.reset_product, "b r", products),
    ]


def functions(rng: random.Random) -> list[dict[str, Any]]:
    """Chapters 3 to 6, what is no matrix."""
    near = [v for node in (0, 512, 81920, oracle.LIMIT // 2, oracle.LIMIT) for v in range(node - 3, node + 4)]
    a = [*S32_EDGES, *near, *(-v for v in near), *(rng.randint(-(2**18), 2**18) for _ in range(60))]
    states = [
        (
            rng.choice((0, 1, 15, 16384, 32768, rng.randint(0, 32768))),
            n,
            h,
            rng.choice((0, 32767, rng.randint(0, 32767))),
        )
        for n in (-32767, -1, 0, 1, 32767, rng.randint(-32767, 32767))
        for h in (-32768, -1, 0, 1, 32767, rng.randint(-32768, 32767))
        for _ in range(4)
    ]
    counts = [(x, f) for x in spread(S32_EDGES, -(2**31), 2**31 - 1, 10, rng) for f in (-31, -16, -1, 0, 1, 15, 16, 31)]
    reals = [
        (x, f) for x in (0.0, 0.1, -0.5, 2.5, -2.5, 1e-300, 1e300, 0.49999999999999994) for f in (-31, -1, 0, 15, 31)
    ]
    new_rng = random.Random(2)
    c = [
        *S32_EDGES,
        -16385,
        -16384,
        -16383,
        16383,
        16384,
        16385,
        *(new_rng.randint(-(2**18), 2**18) for _ in range(20)),
    ]
    bounded = [(kind, v, f_h) for kind in oracle.BOUNDED for v in c for f_h in (15, new_rng.randint(-15, 14))]
    unbounded = [(kind, v, f_h) for kind in (RELU, LINEAR) for v in c for f_h in (-31, 31)]
    merged = [
        (kind, f, b) for kind in MERGES for f in S16_EDGES for b in (*S16_EDGES, new_rng.randint(-(2**15), 2**15 - 1))
    ]
    return [
        cases("R7", oracle.sigmoid, "a", [(v,) for v in a]),
        cases("R8", oracle.tanh, "a", [(v,) for v in a]),
        cases("R18", oracle.hard_sigmoid, "a", [(v,) for v in c]),
        cases("R19", oracle.candidate, "kind a f_h", bounded + unbounded),
        cases("R12", oracle.update_state, "u n h e", states),
        cases("R14", oracle.activate, "activation a", [(kind, v) for kind in range(4) for v in (*S32_EDGES, *a[-20:])]),
        cases("R21", oracle.token, "x tokens", [(x, n) for x in S16_EDGES for n in (1, 300, 32768)]),
        cases("R23", oracle.merge, "kind forward backward", merged),
        cases("R15", oracle.convert_input, "x f", counts + reals),
    ]


def cases(rule: str, function: Callable[..., Any], names: str, arguments: list[tuple[Any, ...]]) -> dict[str, Any]:
    unique = list(dict.fromkeys(arguments))
    return {
        "rule": rule,
        "function": function.__name__,
        "arguments": names.split(),
        "cases": [[list(values), function(*values)] for values in unique],
    }


def to_json(value: Any, indent: str = "") -> str:
    """JSON with a line for each row, case or short list of rows, so that a difference can be read."""
    inner = indent + " "
    if isinstance(value, dict):
        items = [f"{inner}{json.dumps(key)}: {to_json(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    line = json.dumps(value)
    is_plain = not isinstance(value, (list, tuple)) or not any(isinstance(item, (dict, list, tuple)) for item in value)
    if is_plain or (len(line) <= 100 and "{" not in line):
        return line
    return "[\n" + ",\n".join(inner + to_json(item, inner) for item in value) + f"\n{indent}]"


def vector_files() -> dict[str, str]:
    """Returns the text of each file by its name."""
    rng = random.Random(1)
    files = {"functions.json": to_json([*primitives(rng), *functions(rng)]) + "\n"}
    for seed, (name, (plan, inputs)) in enumerate(MODELS.items()):
        model, x = random_model(plan, seed), random_inputs(inputs, 8 if seed < 11 else 5, plan.n_inputs, seed)
        files[f"model_{name}.json"] = to_json(model_vector(name, model, x)) + "\n"
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file would change")
    check = parser.parse_args().check
    files = vector_files()
    present = {path.name: path.read_text(encoding="utf-8") for path in VECTORS.glob("*.json")}
    changed = sorted(name for name in files.keys() | present.keys() if files.get(name) != present.get(name))
    print("\n".join(changed) or "no changes")
    if check:
        return 1 if changed else 0
    VECTORS.mkdir(exist_ok=True)
    for name in present.keys() - files.keys():
        (VECTORS / name).unlink()
    for name, text in files.items():
        (VECTORS / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
