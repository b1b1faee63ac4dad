"""The proof of an import: the framework's object and its import run on the same input and are compared.

Everything here leaves the process as it was: own random generator, global random states put back.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.array_types import FloatArray
from quantgru.errors import ModelError

TOLERANCE: Final = 1e-5  # of the largest expected value
PLAIN: Final = "give its weights to a plain model of the framework's own layers"
SMALLEST_SCALE: Final = 1e-6  # outputs that are zero, or nearly so, are compared on this scale

# Two steps already use every weight. Each further one lets a large GRU multiply the rounding of float32, in which Keras
# computes: 154 units with weights of rms 0.5 reach 1e-5 after eight.
N_SEQUENCES: Final = 8
N_STEPS: Final = 3


def probe(n_features: int) -> FloatArray:
    """Input for a comparison, [sequences, steps, features], always the same."""
    generator = np.random.default_rng(20190429)
    return generator.standard_normal((N_SEQUENCES, N_STEPS, n_features))


def probe_tokens(n_tokens: int) -> npt.NDArray[np.int64]:
    """Token numbers for a comparison, [sequences, steps], always the same."""
    generator = np.random.default_rng(20190429)
    return generator.integers(0, n_tokens, (N_SEQUENCES, N_STEPS))


def compare(where: str, expected: npt.ArrayLike, found: npt.ArrayLike, tolerance: float = TOLERANCE) -> None:
    """Raises ModelError where the import's output is not that of the framework."""
    expected, found = np.asarray(expected, dtype=np.float64), np.asarray(found, dtype=np.float64)
    if expected.shape != found.shape:
        raise ModelError(f"{where}: gives shape {expected.shape}, its import gives {found.shape}; {PLAIN}")
    error = difference(expected, found)
    if not error <= tolerance:  # also true for NaN
        raise ModelError(
            f"{where}: its import differs by {error:.1e} of the largest output (allowed {tolerance:.0e}), "
            f"so it computes something else than its type says; {PLAIN}"
        )


def difference(expected: FloatArray, found: FloatArray) -> float:
    """The largest, as a share of the largest expected value."""
    return float(np.abs(expected - found).max() / max(SMALLEST_SCALE, np.abs(expected).max()))


def first_line(error: BaseException) -> str:
    """What a foreign error says, short enough for a message of one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def softmax(x: FloatArray) -> FloatArray:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def log_softmax(x: FloatArray) -> FloatArray:
    return np.log(softmax(x))


# What a chain may leave out at its end, put back for the comparison.
LEFT_OUT: Final[dict[str | None, Callable[[FloatArray], FloatArray]]] = {
    None: lambda x: x,
    "softmax": softmax,
    "log_softmax": log_softmax,
}


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Puts the global random states of Python, numpy and torch back: a user's forward() may draw from them."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch: Any = sys.modules.get("torch")
    torch_state = torch.get_rng_state() if torch else None
    cuda_states = torch.cuda.get_rng_state_all() if torch and torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        if torch:
            torch.set_rng_state(torch_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)
