"""The operator GRU: every direction, layout and order of the reset, its functions, lengths and initial states.

Blocks of W, R and B are stacked z, r, h. linear_before_reset=0 is reset "before" the product; there, the recurrent bias
of h stands outside of it: h~ = g(x Wh + (r * h) Rh + Rbh + Wbh).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quantgru.activations import Reset
from quantgru.errors import ModelError
from quantgru.importers.chain import refuse
from quantgru.importers.gates import KERAS_ORDER, stacked_gru, with_hard_sigmoid, with_scaled_candidate
from quantgru.importers.onnx_atoms import Atom, Given, Recurrent, Vector, of_atom
from quantgru.importers.onnx_cells import start_of
from quantgru.importers.onnx_constants import given, required
from quantgru.importers.onnx_graph import Node
from quantgru.importers.onnx_reader import Operator, Reader, Value, is_whole, same_constant
from quantgru.importers.onnx_shapes import Arguments, tensor_at, whole_numbers
from quantgru.importers.onnx_sizes import Symbol
from quantgru.importers.onnx_tensors import Axis, Tensor, explode, pick
from quantgru.model import Gru

DIRECTIONS: Final = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}  # whether from the end
GATE_FUNCTIONS: Final = ("sigmoid", "hardsigmoid")
CANDIDATE_FUNCTIONS: Final = ("tanh", "relu", "sigmoid", "affine")
PARAMETERS: Final = {  # of functions that have them: default alpha and beta, where ONNX says one
    "hardsigmoid": (0.2, 0.5),
    "affine": (None, None),
    "leakyrelu": (0.01, None),
    "thresholdedrelu": (1.0, None),
    "scaledtanh": (None, None),
    "elu": (1.0, None),
}
ALPHA_ONLY: Final = ("leakyrelu", "thresholdedrelu", "elu")

SINGLE: Final = "export the model with an axis of steps, or with its state as an input and an output"
FAULT: Final = (
    "{where}: linear_before_reset=0, but PyTorch, which wrote the file, resets after the product (github.com/pytorch/"
    "pytorch/issues/189225): outputs are those of the file, and probably not those of the module; "
    "load(..., reset='after') or --reset after reads what was meant"
)


Start = tuple[npt.NDArray[np.float64] | None, Given | None]  # a constant initial state, or the input that it is


@dataclass(frozen=True)
class Functions:
    """Of one direction: gate and candidate, lower case, with alpha and beta of those that have them."""

    gate: str
    candidate: str
    gate_parameters: tuple[float | None, float | None]
    candidate_parameters: tuple[float | None, float | None]


def gru(reader: Reader, node: Node, arguments: Arguments) -> list[Value]:
    """Y and Y_h."""
    reader.has_nodes = True
    if "clip" in node.attributes:
        raise refuse(node.where, f"clip={node.attributes['clip']:g}", "export it without clipping")
    directions = DIRECTIONS.get(node.attributes["direction"])
    if directions is None:
        raise ModelError(
            f"{node.where}: direction {node.attributes['direction'][:40]!r}, one of {', '.join(DIRECTIONS)}"
        )
    tensor, by_batch = tensor_at(node, arguments, 0), bool(node.attributes.get("layout", 0))
    layers = _layers(node, arguments, len(directions), _reset(reader, node))
    steps, batch = _free_axes(reader, node, tensor, by_batch, layers[0].n_inputs)
    source = reader.settle(node.where, tensor.vectors)
    starts = _starts(reader, node, given(node, arguments, 5), by_batch, layers)
    if steps is None:
        return _one_step(reader, node, (batch, by_batch), source, layers, starts)
    lengths = _lengths(reader, node, given(node, arguments, 4), steps)
    every, final = [], []
    for backwards, layer, (start, name) in zip(directions, layers, starts, strict=True):
        of = reader.algebra.reversed(node.where, source) if backwards else source
        layer = replace(layer, name=_name(node, backwards, len(directions)), initial_state=start)
        states = Recurrent(layer.n_units, node.where, layer, of, name)
        reader.lengths[states] = lengths
        final.append(of_atom(reader.algebra.step(node.where, states, steps, -1)))
        every.append(of_atom(reader.algebra.reversed(node.where, states) if backwards else states))
    return _results((steps,), batch, by_batch, every, final)


def _one_step(
    reader: Reader, node: Node, axes: tuple[Axis, bool], source: Atom, layers: Sequence[Gru], starts: Sequence[Start]
) -> list[Value]:
    """Of a graph that computes a single step, from a state that it is given."""
    (start, name), cells = starts[0], reader.finder.cells
    if len(layers) > 1 or node.attributes["direction"] != "forward" or given(node, node.inputs, 4):
        raise refuse(node.where, "a single step, backwards or of a given length")
    if name is None or not cells.is_single(source):
        raise refuse(node.where, "a single step that starts from no state, or is taken from a sequence", SINGLE)
    layer = replace(layers[0], name=_name(node, False, 1), initial_state=start)
    states = of_atom(cells.single(Recurrent(layer.n_units, node.where, layer, source, name)))
    return _results(1, *axes, [states], [states])


def _results(steps: Axis, batch: Axis, by_batch: bool, every: list[Vector], final: list[Vector]) -> list[Value]:
    n, units = len(every), every[0].width
    if by_batch:
        return [Tensor((batch, steps, n, units), tuple(every)), Tensor((batch, n, units), tuple(final))]
    return [Tensor((steps, n, batch, units), tuple(every)), Tensor((n, batch, units), tuple(final))]


def _name(node: Node, backwards: bool, n_directions: int) -> str:
    name = (node.name or next(filter(None, node.outputs), ""))[:60]
    name = name if name.isprintable() and name else "gru"
    return f"{name}.{'backward' if backwards else 'forward'}" if n_directions > 1 else name


def _reset(reader: Reader, node: Node) -> Reset:
    written: Reset = "after" if node.attributes.get("linear_before_reset") else "before"
    if reader.options.reset is not None:
        return reader.options.reset
    if written == "before" and reader.graph.producer == "pytorch" and not reader.warnings:  # once is enough
        reader.warnings.append(FAULT.format(where=node.where))
    return written


def _free_axes(reader: Reader, node: Node, tensor: Tensor, by_batch: bool, n_inputs: int) -> tuple[Symbol | None, Axis]:
    """The axes of steps and batch of X; None for a single step. Raises ModelError, FeaturesNeeded."""
    if len(tensor.axes) != 3:
        raise ModelError(f"{node.where}: reads {tensor}, expected three axes")
    reader.want_features(tensor.axes[2], n_inputs)
    batch, steps = tensor.axes[:2] if by_batch else tensor.axes[1::-1]
    free = steps == 1 if isinstance(steps, int) else len(steps) == 1
    if not free or (isinstance(batch, int) and batch != 1):
        raise refuse(node.where, f"reads {tensor}: its steps or its batch are no axis of an input of the model")
    if tensor.axes[2] != n_inputs:
        raise ModelError(f"{node.where}: weights of {n_inputs} inputs, but it reads {tensor}")
    symbol = None if isinstance(steps, int) else steps[0]
    if symbol is not None:
        reader.bind(node.where, symbol, "steps")
    for other in () if isinstance(batch, int) else batch:
        reader.bind(node.where, other, "batch")
    return symbol, batch


def _layers(node: Node, arguments: Arguments, n: int, reset: Reset) -> list[Gru]:
    """One for each direction, in the order of the node."""
    W, R = (_weights(node, arguments, i, 3) for i in (1, 2))
    units = R.shape[2]
    expected = {"W": (n, 3 * units, W.shape[2]), "R": (n, 3 * units, units), "B": (n, 6 * units)}
    B = np.zeros(expected["B"]) if given(node, arguments, 3) is None else _weights(node, arguments, 3, 2)
    for name, array in (("W", W), ("R", R), ("B", B)):
        if array.shape != expected[name] or 0 in array.shape:
            raise ModelError(f"{node.where}: {name} {array.shape}, expected {expected[name]}")
    if node.attributes.get("hidden_size", units) != units:
        raise ModelError(f"{node.where}: hidden_size={node.attributes['hidden_size']}, but R is {R.shape}")
    layers = []
    for w, r, b, functions in zip(W, R, B, _functions(node, n), strict=True):
        layer = stacked_gru("gru", reset, KERAS_ORDER, (w, r), (b[: 3 * units], b[3 * units :]))
        layers.append(_with_functions(node, layer, functions))
    return layers


def _weights(node: Node, arguments: Arguments, i: int, rank: int) -> npt.NDArray[np.float64]:
    array = required(node, arguments, i)
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise refuse(node.where, f"input {i} is no constant", "weights must be constants of the file")
    if array.ndim != rank:
        raise ModelError(f"{node.where}: input {i} has {array.ndim} axes, expected {rank}")
    return np.asarray(array, dtype=np.float64)


# ---- functions ------------------------------------------------------------------------------------------------------


def _functions(node: Node, n_directions: int) -> list[Functions]:
    """Gate and candidate of each direction; alpha and beta go, in order, to those that have them."""
    names = [name.lower() for name in node.attributes.get("activations", ())] or ["sigmoid", "tanh"] * n_directions
    if len(names) != 2 * n_directions:
        raise ModelError(f"{node.where}: {len(names)} activations, expected {2 * n_directions}")
    alphas = list(node.attributes.get("activation_alpha", ()))
    betas = list(node.attributes.get("activation_beta", ()))
    parameters: list[tuple[float | None, float | None]] = []
    for name in names:
        alpha, beta = PARAMETERS.get(name, (None, None))
        if name in PARAMETERS:
            alpha = alphas.pop(0) if alphas else alpha
        if name in PARAMETERS and name not in ALPHA_ONLY:
            beta = betas.pop(0) if betas else beta
        parameters.append((alpha, beta))
    if alphas or betas:
        raise ModelError(f"{node.where}: more values of activation_alpha or activation_beta than {names[:4]} have")
    return [Functions(names[i], names[i + 1], parameters[i], parameters[i + 1]) for i in range(0, len(names), 2)]


def _with_functions(node: Node, layer: Gru, functions: Functions) -> Gru:
    """The layer with these functions; slopes and offsets become part of the weights."""
    gate, candidate = functions.gate, functions.candidate
    if gate not in GATE_FUNCTIONS or candidate not in CANDIDATE_FUNCTIONS:
        raise refuse(
            node.where,
            f"activations {gate[:40]!r} and {candidate[:40]!r}",
            f"supported are gates {', '.join(GATE_FUNCTIONS)} and candidates {', '.join(CANDIDATE_FUNCTIONS)}",
        )
    if gate == "hardsigmoid":
        layer = with_hard_sigmoid(layer, *_both(node, gate, functions.gate_parameters))
    if candidate == "affine":
        layer = with_scaled_candidate(layer, *_both(node, candidate, functions.candidate_parameters))
        return replace(layer, candidate="linear")
    return replace(layer, candidate=candidate)  # type: ignore[arg-type]  # checked above


def _both(node: Node, name: str, parameters: tuple[float | None, float | None]) -> tuple[float, float]:
    alpha, beta = parameters
    if alpha is None or beta is None:
        raise ModelError(f"{node.where}: {name} without activation_alpha and activation_beta, which have no default")
    return alpha, beta


# ---- lengths and initial states -------------------------------------------------------------------------------------


def _lengths(reader: Reader, node: Node, value: Any, steps: Symbol) -> str | None:
    """The input that gives the lengths of sequences; None where all have every step. Raises ModelError."""
    if value is None:
        return None
    constant = value if isinstance(value, np.ndarray) else same_constant(node.where, value)
    if constant is None:
        name = whole_numbers(node.where, value, "lengths that are computed from data").name
        reader.tokens.add(name)
        return name
    if not is_whole(constant, steps):
        raise refuse(
            node.where,
            f"sequence_lens {[str(entry) for entry in constant.reshape(-1)[:4].tolist()]}, the lengths of one batch",
            "export it with the lengths as an input: the model then takes those of the data",
        )
    return None


def _starts(reader: Reader, node: Node, value: Any, by_batch: bool, layers: Sequence[Gru]) -> list[Start]:
    """Of each direction the constant initial state, and the input that gives it otherwise."""
    if value is None:
        return [(None, None)] * len(layers)
    if isinstance(value, np.ndarray):
        return _constant_starts(node, value, by_batch, layers)
    units = layers[0].n_units
    tensor = _by_direction(reader, node, value, by_batch, (len(layers), units))
    if tensor.n_features != len(layers) * units:
        raise ModelError(f"{node.where}: initial_h {value}, expected {units} features for each direction")
    starts = []
    for i in range(len(layers)):
        rows = np.arange(i * units, (i + 1) * units)
        starts.append(start_of(node.where, reader.settle(node.where, pick(reader.algebra, tensor.vectors, rows))))
    return starts


def _by_direction(reader: Reader, node: Node, tensor: Tensor, by_batch: bool, expected: tuple[int, int]) -> Tensor:
    """An initial state whose directions are features."""
    if len(tensor.axes) != 3:
        raise ModelError(f"{node.where}: initial_h {tensor}, expected three axes")
    reader.want_features(tensor.axes[2], expected[1])
    axis = 1 if by_batch else 0
    if not isinstance(tensor.axes[axis], int):
        tensor = explode(reader.algebra, node.where, tensor, axis, range(expected[0]))
    batch = tensor.axes[1 - axis]
    if not isinstance(batch, int):
        for symbol in batch:
            reader.bind(node.where, symbol, "batch")
    return tensor


def _constant_starts(node: Node, value: npt.NDArray[Any], by_batch: bool, layers: Sequence[Gru]) -> list[Start]:
    states = value.swapaxes(0, 1) if by_batch and value.ndim == 3 else value
    expected = len(layers), layers[0].n_units
    if (
        states.ndim != 3
        or states.dtype.kind != "f"
        or (states.shape[0], states.shape[2]) != expected
        or not states.size
    ):
        raise ModelError(f"{node.where}: initial_h {value.shape}, expected {expected} and the batch between them")
    first = np.asarray(states[:, 0], dtype=np.float64)
    stride = states.strides[1]
    if stride and (states != states[:, :1]).any():
        raise refuse(
            node.where,
            "initial_h differs from sequence to sequence",
            "make it an input of the model, and give it with run(x, initial_states=...)",
        )
    return [(start if start.any() else None, None) for start in first]


OPERATORS: Final[dict[str, Operator]] = {"GRU": gru}
