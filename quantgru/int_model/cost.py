"""What a model costs: bytes and multiply-accumulates, from its shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

from quantgru.int_model.int_model import IntModel
from quantgru.int_model.layers import IntBidirectional, IntDense, IntEmbedding, IntGru, IntReverse, Matrix


@dataclass(frozen=True)
class Cost:
    """Of one model on any target; code and descriptors come on top.

    constant_bytes  arrays in flash: weights, multipliers, shifts, biases, initial states, formats, digest
    state_bytes     RAM that must survive between steps; none in a model that is run with a whole sequence
    scratch_bytes   RAM that models can share
    step_macs       multiply-accumulates of a step
    head_macs       multiply-accumulates of the head
    row_bytes       RAM on top of the scratch for each step of the longest sequence; 0 if a model runs step by step
    """

    constant_bytes: int
    state_bytes: int
    scratch_bytes: int
    step_macs: int
    head_macs: int
    row_bytes: int = 0


@dataclass(frozen=True)
class WorkShape:
    """Values in each array that a run of a model works in; zero where it does not need one.

    units          u, r and n: of all GRU layers; of the largest one in a model that is run with a whole sequence
    product_units  what the reset gate leaves of h, if it acts before the product
    vectors        how many vectors pass between layers without a state, 0 ... 2; vector_width is that of the widest
    state_units    h in a model that is run with a whole sequence; of both directions where they end in one vector
    row_values     what is kept of each step in a model that is run with a whole sequence
    """

    units: int
    product_units: int
    vectors: int
    vector_width: int
    state_units: int = 0
    row_values: int = 0


def work_shape(model: IntModel) -> WorkShape:
    product_units = max((gru.n_units for gru in model.grus if gru.reset == "before"), default=0)
    between = [layer for layer in (*model.body, *model.head[:-1]) if isinstance(layer, (IntEmbedding, IntDense))]
    width = max((layer.n_outputs for layer in between), default=0)
    if model.streaming:
        return WorkShape(model.n_units, product_units, _vectors_of_a_step(model), width)
    return WorkShape(
        max(gru.n_units for gru in model.grus),
        product_units,
        _vectors_of_a_run(model),
        width,
        max(_state_units(layer) for layer in model.body),
        _row_values(model),
    )


def cost(model: IntModel) -> Cost:
    work = work_shape(model)
    constants = model.n_inputs + len(model.digest)
    for gru in model.grus:
        constants += _matrix_bytes(gru.input) + _matrix_bytes(gru.recurrent)
        constants += gru.bias.nbytes + gru.recurrent_bias.nbytes
        constants += gru.initial_state.nbytes if gru.initial_state.any() else 0
    for dense in model.dense:
        constants += _matrix_bytes(dense.matrix) + dense.bias.nbytes
    if model.embedding is not None:
        constants += model.embedding.codes.nbytes
    scratch = 6 * work.units + 2 * (work.product_units + work.vectors * work.vector_width)
    if not model.streaming:
        counter = 2 if model.saturating else 0
        scratch += 2 * (work.state_units + work.units) + counter
    head_macs = sum(dense.matrix.codes.size for dense in model.head)
    body_macs = sum(dense.matrix.codes.size for dense in model.dense) - head_macs
    return Cost(
        constants,
        4 * model.n_units if model.streaming else 0,
        scratch,
        body_macs + sum(gru.input.codes.size + gru.recurrent.codes.size for gru in model.grus),
        head_macs,
        2 * work.row_values,
    )


def _matrix_bytes(matrix: Matrix) -> int:
    return int(matrix.codes.nbytes + matrix.multiplier.nbytes + matrix.shift.nbytes)


def _vectors_of_a_step(model: IntModel) -> int:
    """Layers without a state can follow one another: two vectors are enough, they take turns."""
    longest = chain = 0
    for layer in model.body:
        if isinstance(layer, (IntEmbedding, IntDense)):
            chain += 1
        elif isinstance(layer, IntGru):
            chain = 0
        longest = max(longest, chain)
    return min(max(longest, len(model.head) - 1), 2)


def _vectors_of_a_run(model: IntModel) -> int:
    """A dense layer of the body writes a vector, and then the row; an embedding's vector is made when it is read."""
    kinds = [type(layer) for layer in model.body if not isinstance(layer, IntReverse)]
    embedded = kinds[0] is IntEmbedding
    of_body = (embedded or IntDense in kinds) + (embedded and kinds[1] is IntDense)
    return min(max(of_body, len(model.head) - 1), 2)


def _state_units(layer: object) -> int:
    match layer:
        case IntGru():
            return layer.n_units
        case IntBidirectional():
            return layer.forward.n_units * (2 if layer.final else 1)
        case _:
            return 0


def _row_values(model: IntModel) -> int:
    """Layers run one after the other, and write where they read, except for the first: it reads the inputs.

    A bidirectional layer keeps what it reads until its second direction has read it, too, beside the first's outputs.
    """
    values, read_from_row = 0, 0
    for layer in model.body:
        if isinstance(layer, IntBidirectional):
            if layer.final:  # its one vector stays where the states are
                break
            values = max(values, read_from_row + layer.forward.n_units)
        if isinstance(layer, (IntGru, IntBidirectional, IntDense)):
            values = max(values, layer.n_outputs)
            read_from_row = layer.n_outputs
    return values
