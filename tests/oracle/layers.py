"""Chapter 5 of SPEC.md: all other layers."""

from collections.abc import Sequence

from oracle.arithmetic import round_shift, s8, s16, s32, saturate16, sigmoid, tanh, within
from oracle.gru import row
from oracle.models import (
    LINEAR,
    MERGE_AVE,
    MERGE_CONCAT,
    MERGE_MUL,
    MERGE_SUM,
    RELU,
    SIGMOID,
    TANH,
    Bidirectional,
    Dense,
    Embedding,
    Gru,
    Model,
    Reverse,
)


def activate(activation: int, a: int) -> int:
    """R14: one value of the table of activations."""
    if activation == LINEAR:
        return saturate16(a)
    if activation == RELU:
        return saturate16(max(a, 0))
    if activation == SIGMOID:
        return s16(min(sigmoid(a), 32767))
    assert activation == TANH
    return tanh(a)


def dense(layer: Dense, x: Sequence[int]) -> tuple[int, ...]:
    """R14: the outputs of one dense layer."""
    return tuple(
        activate(layer.activation, s32(row(layer.matrix, i, x) + s32(layer.b[i]))) for i in range(len(layer.b))
    )


def token(x: int, tokens: int) -> int:
    """R21: the token that an input means."""
    return min(max(s16(x), 0), within(tokens, 1, 32768) - 1)


def embed(layer: Embedding, x: Sequence[int]) -> tuple[int, ...]:
    """R21: the outputs of an embedding."""
    (number,) = x
    return tuple(s16(256 * s8(code)) for code in layer.codes[token(number, len(layer.codes))])


def merge(kind: int, forward: int, backward: int) -> int:
    """R23: one output of a bidirectional layer that does not concatenate."""
    s16(forward), s16(backward)
    if kind == MERGE_MUL:
        return saturate16(round_shift(forward * backward, 15))
    assert kind in (MERGE_SUM, MERGE_AVE)
    return s16(round_shift(forward + backward, 1))


def merge_all(kind: int, forward: Sequence[int], backward: Sequence[int]) -> tuple[int, ...]:
    """R23: the outputs of a bidirectional layer at one step."""
    if kind == MERGE_CONCAT:
        return (*forward, *backward)
    return tuple(merge(kind, f, b) for f, b in zip(forward, backward, strict=True))


def merged_fraction(kind: int, f_h: int) -> int:
    """R23: the fraction bits of these outputs."""
    return {MERGE_CONCAT: f_h, MERGE_SUM: f_h - 1, MERGE_AVE: f_h, MERGE_MUL: 2 * f_h - 15}[kind]


def streaming(model: Model) -> bool:
    """R22: whether the model can run step by step."""
    kinds = [type(layer) for layer in model.layers]
    return Bidirectional not in kinds and Reverse not in kinds[kinds.index(Gru) :]
