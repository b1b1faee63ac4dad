"""The descriptors of quantgru.h in ctypes, and models of quantgru laid out as them."""

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_int8, c_int16, c_int32, c_uint8, c_uint16, c_uint32, c_void_p

from quantgru.int_model import (
    IntBidirectional,
    IntDense,
    IntEmbedding,
    IntGru,
    IntModel,
    Matrix,
    Reverse,
)
from quantgru.int_model.cost import WorkShape

BLOCK_ROWS = 8


class CSection(Structure):
    """qg_section"""

    _fields_ = (
        ("codes", POINTER(c_int8)),
        ("dot", c_void_p),
        ("dot_row", c_void_p),
        ("n_rows", c_uint16),
        ("bits", c_uint8),
    )


class CPacking(Structure):
    """qg_packing"""

    _fields_ = (("affine", c_void_p), ("sections", POINTER(CSection)))


class CMatrix(Structure):
    """qg_matrix"""

    _fields_ = (
        ("codes", POINTER(c_int8)),
        ("packing", POINTER(CPacking)),
        ("multipliers", POINTER(c_uint16)),
        ("shifts", POINTER(c_uint8)),
        ("n_rows", c_uint16),
        ("n_columns", c_uint16),
        ("left_shift", c_uint8),
        ("first_shift", c_uint8),
    )


class CGates(Structure):
    """qg_gates"""

    _fields_ = (("u", POINTER(c_uint16)), ("r", POINTER(c_uint16)), ("n", POINTER(c_int16)))


class CGru(Structure):
    """qg_gru"""

    _fields_ = (
        ("step", c_void_p),
        ("gate", c_void_p),
        ("candidate", c_void_p),
        ("input", CMatrix),
        ("recurrent", CMatrix),
        ("bias", POINTER(c_int32)),
        ("recurrent_bias", POINTER(c_int32)),
        ("initial_state", POINTER(c_int16)),
        ("n_units", c_uint16),
        ("state_shift", c_uint8),
        ("state_fraction_bits", c_int8),
        ("gate_kind", c_uint8),
        ("candidate_kind", c_uint8),
        ("bias_shift", c_uint8),
    )


class CDense(Structure):
    """qg_dense"""

    _fields_ = (
        ("activation", c_void_p),
        ("matrix", CMatrix),
        ("bias", POINTER(c_int32)),
        ("activation_kind", c_uint8),
        ("output_fraction_bits", c_int8),
    )


class CEmbedding(Structure):
    """qg_embedding"""

    _fields_ = (("codes", POINTER(c_int8)), ("n_tokens", c_uint16), ("n_outputs", c_uint16))


class CBidirectional(Structure):
    """qg_bidirectional"""

    _fields_ = (("merge", c_void_p), ("merge_kind", c_uint8), ("final", c_uint8))


class CModelDescriptor(Structure):
    """qg_model"""

    _fields_ = (
        ("step", c_void_p),
        ("kinds", POINTER(c_uint8)),
        ("grus", POINTER(CGru)),
        ("dense", POINTER(CDense)),
        ("head", POINTER(CDense)),
        ("embedding", POINTER(CEmbedding)),
        ("bidirectionals", POINTER(CBidirectional)),
        ("input_fraction_bits", POINTER(c_int8)),
        ("digest", POINTER(c_uint8)),
        ("n_layers", c_uint8),
        ("n_grus", c_uint8),
        ("n_head", c_uint8),
        ("last_step", c_uint8),
        ("output_fraction_bits", c_int8),
        ("n_inputs", c_uint16),
        ("n_units", c_uint16),
        ("n_outputs", c_uint16),
    )


class CScratch(Structure):
    """qg_scratch"""

    _fields_ = (("gates", CGates), ("product", POINTER(c_int16)), ("vectors", POINTER(c_int16) * 2))


class CWork(Structure):
    """qg_work"""

    _fields_ = (
        ("scratch", CScratch),
        ("h", POINTER(c_int16)),
        ("residual", POINTER(c_uint16)),
        ("saturated", POINTER(c_uint16)),
        ("rows", POINTER(c_int16)),
        ("row_values", c_uint16),
        ("most_steps", c_uint16),
    )


class CSelfTest(Structure):
    """qg_selftest_vector"""

    _fields_ = (("inputs", POINTER(c_int16)), ("check", c_uint32), ("n_steps", c_uint16))


# In the order of shim_sizes.
STRUCTURES = (
    CSection,
    CPacking,
    CMatrix,
    CGates,
    CGru,
    CDense,
    CEmbedding,
    CBidirectional,
    CModelDescriptor,
    CScratch,
    CWork,
    CSelfTest,
)


def section_codes(rows: Sequence[Sequence[int]]) -> list[int]:
    """The codes of one section in the order of quantgru.h: blocks of 8 rows column by column, then the rows left."""
    n_blocked = len(rows) // BLOCK_ROWS * BLOCK_ROWS
    codes = []
    for start in range(0, n_blocked, BLOCK_ROWS):
        for column in zip(*rows[start : start + BLOCK_ROWS], strict=True):
            codes += column
    for row in rows[n_blocked:]:
        codes += row
    return codes


def array(ctype: type, values: Sequence[int]) -> ctypes.Array:
    """A C array of these values."""
    return (ctype * len(values))(*values)


def packed_codes(rows: Sequence[Sequence[int]], bits: int) -> list[int]:
    """The bytes of a qg_section, as quantgru.h says."""
    n_left = len(rows) % BLOCK_ROWS
    n_blocked = len(rows) if n_left > bits else len(rows) - n_left
    packed = b""
    for start in range(0, n_blocked, BLOCK_ROWS):
        for column in zip(*rows[start : min(start + BLOCK_ROWS, n_blocked)], strict=True):
            digits = sum(code % 2**bits << bits * i for i, code in enumerate(column))
            packed += digits.to_bytes(bits, "little")
    packed += b"".join(code.to_bytes(1, "little", signed=True) for row in rows[n_blocked:] for code in row)
    return [byte - 256 if byte > 127 else byte for byte in packed]


def _suffix(model: IntModel) -> str:
    """Of the functions for the row parameters of a model: "_short" where all scales and biases of GRU layers can be."""
    matrices = [matrix for gru in model.grus for matrix in (gru.input, gru.recurrent)]
    matrices += [dense.matrix for dense in model.dense]
    steps = [m % 512 for matrix in matrices for m in matrix.multipliers.tolist()]
    ranges = [int(matrix.shifts.max()) - int(matrix.shifts.min()) for matrix in matrices]
    lost = [bias % 2 ** _bias_shift(gru) for gru in model.grus for bias in _biases(gru)]
    return "" if any(steps) or max(ranges) > 7 or any(lost) else "_short"


def _biases(gru: IntGru) -> list[int]:
    return [*gru.bias.tolist(), *gru.recurrent_bias.tolist()]


def _bias_shift(gru: IntGru) -> int:
    """The least that leaves 16 bits of all."""
    return next(shift for shift in range(17) if all(-(2**15) <= bias >> shift < 2**15 for bias in _biases(gru)))


def _bias_array(gru: IntGru, biases: list[int], suffix: str) -> ctypes.Array:
    if not suffix:
        return array(c_int32, biases)
    return ctypes.cast(array(c_int16, [bias >> _bias_shift(gru) for bias in biases]), POINTER(c_int32))


def _matrix(library: ctypes.CDLL, matrix: Matrix, n_sections: int, suffix: str) -> CMatrix:
    """In sections where one has codes of less than 8 bits, or of more."""
    rows = matrix.codes.tolist()
    n = len(rows) // n_sections
    sections = [rows[section * n : (section + 1) * n] for section in range(n_sections)]
    widths = [_width(section) for section in sections]
    if set(widths) == {8}:
        codes = array(c_int8, [code for section in sections for code in section_codes(section)])
        packing = CPacking(_address(library, f"qg_affine_bytes{suffix}"), None)
    else:
        codes = None
        packing = _packing(library, sections, widths, suffix)
    multipliers, shifts = matrix.multipliers.tolist(), matrix.shifts.tolist()
    first_shift = min(shifts)
    scales = [m // 512 - 32 + 32 * (s - first_shift) for m, s in zip(multipliers, shifts, strict=True)]
    return CMatrix(
        codes,
        ctypes.pointer(packing),
        None if suffix else array(c_uint16, multipliers),
        array(c_uint8, scales if suffix else shifts),
        matrix.n_rows,
        matrix.n_columns,
        matrix.left_shift,
        first_shift if suffix else 0,
    )


def _width(rows: Sequence[Sequence[int]]) -> int:
    codes = [code for row in rows for code in row]
    return next(bits for bits in (*range(2, 9), 16) if -(2**bits) <= 2 * min(codes) and 2 * max(codes) < 2**bits)


def _packing(
    library: ctypes.CDLL, sections: Sequence[Sequence[Sequence[int]]], widths: Sequence[int], suffix: str
) -> CPacking:
    described = [_section(library, rows, bits) for rows, bits in zip(sections, widths, strict=True)]
    return CPacking(_address(library, f"qg_affine_packed{suffix}"), (CSection * len(described))(*described))


def _section(library: ctypes.CDLL, rows: Sequence[Sequence[int]], bits: int) -> CSection:
    if bits == 16:
        codes, dot_row = ctypes.cast(array(c_int16, section_codes(rows)), POINTER(c_int8)), "qg_dot_row_16"
    else:
        codes, dot_row = ctypes.cast(array(c_int8, packed_codes(rows, bits)), POINTER(c_int8)), "qg_dot_row"
    return CSection(codes, _address(library, f"qg_dot_block_{bits}"), _address(library, dot_row), len(rows), bits)


def _address(library: ctypes.CDLL, name: str) -> c_void_p:
    return ctypes.cast(getattr(library, name), c_void_p)


_GATES = {"sigmoid": "qg_sigmoid", "hard_sigmoid": "qg_hard_sigmoid"}  # numbers of R17 are the order
_CANDIDATES = {
    "tanh": "qg_tanh",
    "relu": "qg_relu",
    "linear": "qg_linear",
    "sigmoid": "qg_signed_sigmoid",
    "hard_tanh": "qg_linear",
}
_ACTIVATIONS = {"linear": "qg_linear", "relu": "qg_relu", "sigmoid": "qg_signed_sigmoid", "tanh": "qg_tanh"}
_MERGES = {"concat": None, "sum": "qg_merge_mean", "mul": "qg_merge_product", "ave": "qg_merge_mean"}
_KINDS = {IntGru: 1, IntDense: 2, IntEmbedding: 3, Reverse: 4, IntBidirectional: 5}


def _number(names: dict[str, object], name: str) -> int:
    return list(names).index(name)


def _gru(library: ctypes.CDLL, gru: IntGru, suffix: str) -> CGru:
    return CGru(
        _address(library, f"qg_gru_reset_{gru.reset}{suffix}"),
        _address(library, _GATES[gru.gate]),
        _address(library, _CANDIDATES[gru.candidate]),
        _matrix(library, gru.input, 3, suffix),
        _matrix(library, gru.recurrent, 3, suffix),
        _bias_array(gru, gru.bias.tolist(), suffix),
        _bias_array(gru, gru.recurrent_bias.tolist(), suffix) if gru.reset == "after" else None,
        None if gru.initial_state is None else array(c_int16, gru.initial_state.tolist()),
        gru.n_units,
        0 if gru.candidate in ("relu", "linear") else 15 - gru.state_fraction_bits,
        gru.state_fraction_bits,
        _number(_GATES, gru.gate),
        _number(_CANDIDATES, gru.candidate),
        _bias_shift(gru) if suffix else 0,
    )


def _dense(library: ctypes.CDLL, dense: IntDense, suffix: str) -> CDense:
    return CDense(
        _address(library, _ACTIVATIONS[dense.activation]),
        _matrix(library, dense.matrix, 1, suffix),
        array(c_int32, dense.bias.tolist()),
        _number(_ACTIVATIONS, dense.activation),
        dense.output_fraction_bits,
    )


def embedding_descriptor(embedding: IntEmbedding) -> CEmbedding:
    """qg_embedding of a layer."""
    return CEmbedding(array(c_int8, embedding.codes.ravel().tolist()), embedding.n_tokens, embedding.n_outputs)


def _bidirectional(library: ctypes.CDLL, layer: IntBidirectional) -> CBidirectional:
    merge = _MERGES[layer.merge]
    return CBidirectional(_address(library, merge) if merge else None, _number(_MERGES, layer.merge), layer.final)


def model_descriptor(library: ctypes.CDLL, model: IntModel) -> CModelDescriptor:
    """qg_model of a model."""
    suffix = _suffix(model)
    plain = all(isinstance(layer, (IntGru, Reverse)) for layer in model.body)
    dense = (CDense * len(model.dense))(*(_dense(library, layer, suffix) for layer in model.dense))
    n_body_dense = len(model.dense) - len(model.head)
    both = [_bidirectional(library, layer) for layer in model.layers if isinstance(layer, IntBidirectional)]
    return CModelDescriptor(
        _address(library, "qg_step" if plain else "qg_step_layers") if model.streaming else None,
        array(c_uint8, [_KINDS[type(layer)] for layer in model.layers]),
        (CGru * len(model.grus))(*(_gru(library, gru, suffix) for gru in model.grus)),
        dense,
        ctypes.cast(ctypes.byref(dense, n_body_dense * ctypes.sizeof(CDense)), POINTER(CDense)),
        ctypes.pointer(embedding_descriptor(model.embedding)) if model.embedding else None,
        (CBidirectional * len(both))(*both),
        array(c_int8, model.input_fraction_bits.tolist()),
        array(c_uint8, model.digest),
        len(model.layers),
        len(model.grus),
        len(model.head),
        model.last_step,
        model.output_fraction_bits,
        model.n_inputs,
        model.n_units,
        model.n_outputs,
    )


def scratch_arrays(work: WorkShape) -> CScratch:
    """qg_scratch, with arrays of exactly these sizes; a vector that is not needed is NULL."""
    gates = CGates((c_uint16 * work.gate_units)(), (c_uint16 * work.gate_units)(), (c_int16 * work.gate_units)())
    vectors = [(c_int16 * work.vector_width)() if i < work.vectors else None for i in range(2)]
    return CScratch(gates, (c_int16 * work.product_units)(), (POINTER(c_int16) * 2)(*vectors))
