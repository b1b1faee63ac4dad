"""What a model costs: bytes and multiply-accumulates, from its shapes alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy.typing as npt

from quantgru.int_model.cores import ANY, Core
from quantgru.int_model.int_model import IntModel
from quantgru.int_model.layers import IntBidirectional, IntDense, IntEmbedding, IntGru
from quantgru.int_model.packing import (
    Packing,
    code_array_bytes,
    layout,
    least_code_bits,
    matrices,
    packing_bytes,
    packing_for,
)
from quantgru.int_model.row_parameters import bias_bytes, scale_bytes, short_code_bytes
from quantgru.structure import Reverse

_VALUE_BYTES: Final = 2  # of gates, states, residuals and vectors


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
    """Values of 16 bits in each array that a run of a model works in; zero where it does not need one.

    gate_units     u, r and n, each: of all GRU layers; of the largest one in a model that is run with a whole sequence
    product_units  what the reset gate leaves of h, if it acts before the product
    vectors        how many vectors pass between layers without a state, 0 ... 2; vector_width is that of the widest
    state_units    h in a model that is run with a whole sequence; of both directions where they end in one vector
    row_values     what is kept of each step in a model that is run with a whole sequence
    """

    gate_units: int
    product_units: int
    vectors: int
    vector_width: int
    state_units: int = 0
    row_values: int = 0


def work_shape(model: IntModel) -> WorkShape:
    """The arrays that a model needs besides its constants, and besides the state of one that runs step by step."""
    between = [layer for layer in (*model.body, *model.head[:-1]) if isinstance(layer, (IntEmbedding, IntDense))]
    step_by_step = WorkShape(
        gate_units=model.n_units,
        product_units=max((gru.n_units for gru in model.grus if gru.reset == "before"), default=0),
        vectors=_vectors_of_a_step(model),
        vector_width=max((layer.n_outputs for layer in between), default=0),
    )
    if model.streaming:
        return step_by_step
    return replace(
        step_by_step,
        gate_units=max(gru.n_units for gru in model.grus),
        vectors=_vectors_of_a_run(model),
        state_units=max(_state_units(layer) for layer in model.body),
        row_values=_row_values(model),
    )


def cost(model: IntModel, packing: Packing = "auto") -> Cost:
    """Bytes and multiply-accumulates of a model, as code exported with this packing has them."""
    work = work_shape(model)
    values = 3 * work.gate_units + work.product_units + work.vectors * work.vector_width  # u, r and n come first
    if not model.streaming:
        values += work.state_units + work.gate_units + model.saturating  # h, residual, and a count
    head_macs = sum(dense.matrix.codes.size for dense in model.head)
    dense_macs = sum(dense.matrix.codes.size for dense in model.dense)
    gru_macs = sum(gru.input.codes.size + gru.recurrent.codes.size for gru in model.grus)
    return Cost(
        constant_bytes=_constant_bytes(model, least_code_bits(model, packing)),
        state_bytes=2 * _VALUE_BYTES * model.n_units if model.streaming else 0,  # h and residual
        scratch_bytes=_VALUE_BYTES * values,
        step_macs=gru_macs + dense_macs - head_macs,
        head_macs=head_macs,
        row_bytes=_VALUE_BYTES * work.row_values,
    )


def kernel_bytes(model: IntModel, core: Core = ANY) -> int:
    """Code and descriptors that a model needs at most beyond those of one with bytes and exact row parameters, packed
    where that takes less flash. Less than nothing where the code for bytes is larger.

    What counts for the flash of a device is this and `constant_bytes`: each width of codes has a kernel.
    """
    least_bits = least_code_bits(model, packing_for(model, core))
    return packing_bytes(layout(model, least_bits), core) + short_code_bytes(model)


def flash_bytes(model: IntModel, core: Core = ANY) -> int:
    """Constants, and what short forms take in code on a core: by this, models of one shape are to be compared.

    Raises ConfigError for a core that is not known.
    """
    return cost(model, packing_for(model, core)).constant_bytes + kernel_bytes(model, core)


def _constant_bytes(model: IntModel, least_bits: int) -> int:
    arrays: list[npt.NDArray[Any]] = [model.input_fraction_bits]
    arrays += [gru.initial_state for gru in model.grus if gru.initial_state is not None]
    arrays += [dense.bias for dense in model.dense]
    if model.embedding is not None:
        arrays.append(model.embedding.codes)
    of_rows = scale_bytes(model) * sum(matrix.n_rows for matrix, _ in matrices(model))
    of_rows += sum(bias_bytes(model, gru) for gru in model.grus)
    of_codes = sum(code_array_bytes(layout(model, least_bits)))
    return sum(array.nbytes for array in arrays) + of_rows + of_codes + len(model.digest)


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
    kinds = [type(layer) for layer in model.body if not isinstance(layer, Reverse)]
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
