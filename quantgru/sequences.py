"""Input sequences as users have them: an array [sequences, steps, features], a list of [steps, features], or an .npz.

Everything that reads input goes through `Sequences`, so that shapes and values are checked in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quantgru.array_types import FloatArray
from quantgru.errors import DataError
from quantgru.npz import read_npz
from quantgru.signals import Signal, reverse_steps

SequencesLike = npt.ArrayLike | Sequence[npt.ArrayLike]
StatesLike = Sequence[npt.ArrayLike]


@dataclass(frozen=True, eq=False)
class Mask:
    """Steps that are none: where `keep` bool [sequences, steps] is false; lengths [sequences] count them, too."""

    keep: npt.NDArray[np.bool_]
    lengths: npt.NDArray[np.int64]

    def reversed(self) -> Mask:
        """Of the steps from the last to the first."""
        return Mask(reverse_steps(self.keep[..., None], self.lengths)[..., 0], self.lengths)

    def hold(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Results of the kept steps, spread over all: a masked step repeats the one before it, 0 before the first."""
        latest = np.cumsum(self.keep, axis=1) - 1  # of the kept steps
        held = np.take_along_axis(values, np.maximum(latest, 0)[..., None], axis=1)
        inside = np.arange(self.keep.shape[1]) < self.lengths[:, None]
        return np.asarray(np.where(((latest >= 0) & inside)[..., None], held, 0))


@dataclass(frozen=True, eq=False)
class Sequences(Signal[np.float64]):
    """The input of a model, as a user gave it: sequences of finite numbers, padded with zeros.

    ragged   whether the user gave a list: outputs of every step then come back as a list, too
    mask     the steps that were taken out of `values`, if any
    """

    ragged: bool = False
    mask: Mask | None = None

    def arrange(self, values: npt.NDArray[Any], *, from_last_step: bool = False) -> Any:
        """Per-step results [sequences, steps, ...] as the user gave the input: an array, or a list without padding.

        from_last_step  whether the results begin with that of the last step
        """
        lengths = self.lengths
        if self.mask is not None:
            mask = self.mask.reversed() if from_last_step else self.mask
            values, lengths = mask.hold(values), mask.lengths
        if self.ragged:
            return [steps[:length] for steps, length in zip(values, lengths, strict=True)]
        return values

    def keeping(self, keep: npt.NDArray[np.bool_], what: str = "input") -> Sequences:
        """The sequences without the steps at which `keep` [sequences, steps] is false.

        Raises DataError where nothing is left of one.
        """
        if (keep | ~self.valid).all():
            return self
        keep = self.valid & keep
        lengths = keep.sum(axis=1).astype(np.int64)
        if lengths.min() < 1:
            raise DataError(f"{what}, sequence {int(lengths.argmin())}: every step is masked; leave it out")
        order = np.argsort(~keep, axis=1, kind="stable")[:, : lengths.max(), None]  # kept steps first
        inside = np.arange(lengths.max()) < lengths[:, None]
        values = np.where(inside[..., None], np.take_along_axis(self.values, order, axis=1), 0.0)
        return Sequences(values, lengths, self.ragged, self._mask_of(keep))

    def _mask_of(self, keep: npt.NDArray[np.bool_]) -> Mask:
        """Of these steps and of those that were taken out before."""
        if self.mask is None:
            return Mask(keep, self.lengths)
        of_all = np.zeros_like(self.mask.keep)
        of_all[self.mask.keep] = keep[self.valid]  # as many, and in the same order
        return Mask(of_all, self.mask.lengths)


def as_sequences(x: SequencesLike | Sequences, what: str = "input", n_features: int | None = None) -> Sequences:
    """Returns x as checked `Sequences`.

    Raises DataError where x is empty, not numeric, not [sequences, steps, features] or a list of [steps, features],
    not finite, or has another number of features than `n_features`.
    """
    if isinstance(x, Sequences):
        sequences = x
    elif isinstance(x, (list, tuple)) and not _is_uniform(x):
        sequences = _pad([_numeric(item, f"{what}, sequence {i}") for i, item in enumerate(x)], what)
    else:
        values = _numeric(x, what)
        if values.ndim != 3:
            hint = "; one sequence x is given as [x]" if values.ndim == 2 else ""
            raise DataError(f"{what}: shape {values.shape}, expected [sequences, steps, features]{hint}")
        sequences = Sequences(
            values, np.full(values.shape[0], values.shape[1], dtype=np.int64), isinstance(x, (list, tuple))
        )
    _check(sequences, what, n_features)
    return sequences


def with_token_axis(x: Any) -> Any:
    """Token numbers as frameworks take them, [sequences, steps] or a list of [steps], with an axis of one feature."""
    if isinstance(x, Sequences):
        return x
    if isinstance(x, (list, tuple)) and not _is_uniform(x):
        return [row[:, None] if row.ndim == 1 else row for row in map(np.asarray, x)]
    tokens = np.asarray(x)
    if tokens.ndim != 2:
        return x
    return [row[:, None] for row in tokens] if isinstance(x, (list, tuple)) else tokens[..., None]


def without_masked(
    sequences: Sequences, mask: Any = None, mask_value: float | None = None, what: str = "input"
) -> Sequences:
    """The sequences without masked steps: those where `mask` is false, or where all features are `mask_value`.

    mask is bool [sequences, steps], or a list of [steps], true for a real step, as in Keras. Raises DataError.
    """
    keep = np.ones(sequences.values.shape[:2], dtype=np.bool_)
    if mask is not None:
        keep = _as_mask(mask, sequences, what)
    if mask_value is not None:  # in float32, as frameworks compare: 0.1 is another number there
        keep &= (sequences.values.astype(np.float32) != np.float32(mask_value)).any(axis=2)
    return sequences.keeping(keep, what)


def _as_mask(mask: Any, sequences: Sequences, what: str) -> npt.NDArray[np.bool_]:
    if not isinstance(mask, (list, tuple)) and np.ndim(mask) == 0:
        raise DataError(f"{what}: mask {mask!r}, expected a bool for each step, [sequences, steps]")
    rows = [np.asarray(row) for row in mask] if isinstance(mask, (list, tuple)) else list(np.asarray(mask))
    expected = [(int(length),) for length in sequences.lengths]
    if not sequences.ragged:
        expected = [sequences.values.shape[1:2]] * sequences.n_sequences
    if any(row.dtype != np.bool_ for row in rows) or [row.shape for row in rows] != expected:
        shapes = sorted({f"{row.dtype} {row.shape}" for row in rows})
        raise DataError(
            f"{what}: a mask of {len(rows)} rows, {', '.join(shapes)}, expected a bool for each step of "
            f"{len(expected)} sequences, true where the step is real"
        )
    keep = np.zeros(sequences.values.shape[:2], dtype=np.bool_)
    for kept, row in zip(keep, rows, strict=True):
        kept[: len(row)] = row
    return keep


def as_states(
    states: StatesLike, units: Sequence[int], n_sequences: int, what: str = "initial states"
) -> list[FloatArray]:
    """[sequences, units] of each GRU layer, of states given as [units] or [sequences, units]. Raises DataError."""
    if not isinstance(states, (list, tuple)):
        raise DataError(
            f"{what}: a single {type(states).__name__}, expected a list of {len(units)}: an array for each GRU layer"
        )
    if len(states) != len(units):
        raise DataError(f"{what}: {len(states)} of them, expected a list of {len(units)}: an array for each GRU layer")
    result = []
    for i, (state, n) in enumerate(zip(states, units, strict=True)):
        array = _numeric(state, f"{what}, layer {i}")
        if array.shape not in ((n,), (n_sequences, n)) or not np.isfinite(array).all():
            problem = f"shape {array.shape}" if np.isfinite(array).all() else "a value that is not finite"
            raise DataError(f"{what}, layer {i}: {problem}, expected finite numbers ({n},) or ({n_sequences}, {n})")
        result.append(np.broadcast_to(array, (n_sequences, n)))
    return result


def load_npz(path: str | Path, what: str = "input") -> tuple[Sequences, npt.NDArray[np.int64] | None]:
    """Reads `x` [sequences, steps, features], or token numbers [sequences, steps], from an .npz file.

    Optional are `lengths` and `labels` [sequences], and `mask` bool [sequences, steps]. Returns the sequences and the
    labels, or None. Raises DataError; pickled objects are refused.
    """
    arrays, found = read_npz(Path(path), what, ("x", "lengths", "mask", "labels"))
    if "x" not in arrays:
        raise DataError(f"{what} {path}: no array 'x', found {found}; save it with np.savez({str(path)!r}, x=x)")
    x = _numeric(arrays["x"], f"{what} {path}, array 'x'")
    if x.ndim == 2 and x.shape[1] > 1 and arrays["x"].dtype.kind in "iu":
        x = x[..., None]  # token numbers
    if x.ndim != 3:
        hint = "; token numbers are integers" if x.ndim == 2 else ""
        raise DataError(f"{what} {path}, array 'x': shape {x.shape}, expected [sequences, steps, features]{hint}")
    lengths = np.full(x.shape[0], x.shape[1], dtype=np.int64)
    if "lengths" in arrays:
        lengths = _integers(arrays["lengths"], x.shape[0], f"{what} {path}, array 'lengths'")
        if lengths.size and not (1 <= lengths.min() and lengths.max() <= x.shape[1]):
            raise DataError(
                f"{what} {path}, array 'lengths': {lengths.min()} ... {lengths.max()}, allowed 1 ... {x.shape[1]}"
            )
        x = np.where((np.arange(x.shape[1]) < lengths[:, None])[..., None], x, 0.0)  # padding may hold anything
    sequences = Sequences(x, lengths)
    _check(sequences, f"{what} {path}", None)
    sequences = without_masked(sequences, arrays.get("mask"), what=f"{what} {path}")
    labels = arrays.get("labels")
    if labels is None:
        return sequences, None
    return sequences, _integers(labels, x.shape[0], f"{what} {path}, array 'labels'")


def load_initial_states(path: str | Path, what: str = "input") -> list[FloatArray] | None:
    """Arrays initial_state0, initial_state1, ... of an .npz file, one for each GRU layer; None if it has none.

    Raises DataError.
    """
    _, found = read_npz(Path(path), what, ())
    n = sum(name.startswith("initial_state") for name in found)
    if n == 0:
        return None
    return load_vectors(path, [f"initial_state{i}" for i in range(n)], what)


def check_tokens(sequences: Signal[np.float64], n_tokens: int, embedding: str) -> None:
    """Raises DataError for the first value, at any step, that is no token 0 ... n_tokens - 1 of this embedding."""
    tokens = sequences.values[..., 0]
    wrong = np.argwhere((tokens != np.floor(tokens)) | (tokens < 0) | (tokens >= n_tokens))
    if len(wrong):
        i, t = wrong[0].tolist()
        raise DataError(
            f"input: {tokens[i, t]} at sequence {i}, step {t}, embedding {embedding!r} takes integers of "
            f"0 ... {n_tokens - 1}"
        )


def check_labels(labels: npt.NDArray[np.int64], n_outputs: int) -> npt.NDArray[np.int64]:
    """Returns the labels if each is the number of an output. Raises DataError."""
    if labels.size and not (labels.min() >= 0 and labels.max() < n_outputs):
        raise DataError(
            f"labels: {labels.min()} ... {labels.max()}, allowed are the numbers of the outputs, 0 ... {n_outputs - 1}"
        )
    return labels


def load_vectors(path: str | Path, names: Sequence[str], what: str) -> list[FloatArray]:
    """Reads the named arrays of numbers from an .npz file. Raises DataError."""
    arrays, found = read_npz(Path(path), what, names)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise DataError(f"{what} {path}: no array {missing[0]!r}, found {found}, expected {list(names)}")
    return [_numeric(arrays[name], f"{what} {path}, array {name!r}") for name in names]


def _is_uniform(x: Sequence[Any]) -> bool:
    """Whether a list is nested numbers rather than a list of arrays of unequal lengths."""
    return (
        not any(isinstance(item, np.ndarray) or hasattr(item, "__array__") for item in x)
        and len({len(item) if hasattr(item, "__len__") else -1 for item in x}) <= 1
    )


def _numeric(x: Any, what: str) -> FloatArray:
    try:
        array = np.asarray(x)
    except ValueError:
        raise DataError(f"{what}: rows of unequal lengths; give a list of arrays [steps, features]") from None
    except (TypeError, RuntimeError) as error:  # a tensor on another device, or one that records gradients
        reason = str(error).splitlines()[0]
        raise DataError(f"{what}: cannot be read as an array ({reason})") from None
    if array.dtype.kind not in "fiub":
        raise DataError(f"{what}: type {array.dtype}, expected real numbers")
    return np.asarray(array, dtype=np.float64)


def _integers(x: npt.NDArray[Any], n: int, what: str) -> npt.NDArray[np.int64]:
    if x.shape != (n,) or x.dtype.kind not in "iu":
        raise DataError(f"{what}: {x.dtype} {x.shape}, expected integers ({n},)")
    return x.astype(np.int64)


def _pad(rows: list[FloatArray], what: str) -> Sequences:
    for i, row in enumerate(rows):
        if row.ndim != 2 or row.shape[0] == 0:
            raise DataError(
                f"{what}, sequence {i}: shape {row.shape}, expected [steps, features] with at least one step"
            )
        if row.shape[1] != rows[0].shape[1]:
            raise DataError(f"{what}, sequence {i}: {row.shape[1]} features, sequence 0 has {rows[0].shape[1]}")
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    values = np.zeros((len(rows), int(lengths.max()), rows[0].shape[1]))
    for padded, row in zip(values, rows, strict=True):
        padded[: len(row)] = row
    return Sequences(values, lengths, ragged=True)


def _check(sequences: Sequences, what: str, n_features: int | None) -> None:
    values = sequences.values
    if values.size == 0:
        raise DataError(f"{what}: shape {values.shape} holds no steps; give at least one sequence of one step")
    if n_features is not None and values.shape[2] != n_features:
        raise DataError(
            f"{what}: {values.shape[2]} features, the model has {n_features} inputs; shape {values.shape}, expected "
            f"[sequences, steps, {n_features}]"
        )
    lengths = sequences.lengths
    if lengths.shape != values.shape[:1] or lengths.min() < 1 or lengths.max() > values.shape[1]:
        raise DataError(f"{what}: lengths {lengths.tolist()[:8]}, expected {len(values)} of 1 ... {values.shape[1]}")
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        i, t, c = (int(index) for index in bad[0])
        raise DataError(
            f"{what}: {values[i, t, c]} at sequence {i}, step {t}, feature {c} ({len(bad)} such values); "
            "all values must be finite"
        )
