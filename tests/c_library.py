"""The C library of firmware/, compiled for this machine and called through ctypes.

Two builds: "plain" (-O2) and "undefined" (UBSan). A third, "address" (ASan), can be loaded only where the sanitizer was
loaded first, so that a test runs it in a process of its own. Models are handed over as descriptors, laid out as
quantgru.h says. Compiling is all that is decided here; what must come out is the oracle's business.
"""

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_int8, c_int16, c_int32, c_size_t, c_uint8, c_uint16, c_uint32, c_void_p
from pathlib import Path
from weakref import finalize

import oracle

from quantgru.int_model import (
    IntBidirectional,
    IntDense,
    IntEmbedding,
    IntGru,
    IntLayer,
    IntModel,
    IntReverse,
    Matrix,
)
from quantgru.int_model.cost import WorkShape, work_shape

ROOT = Path(__file__).resolve().parent.parent
FIRMWARE = ROOT / "firmware"
SOURCES = [
    *sorted((FIRMWARE / "src").glob("*.c")),
    *(FIRMWARE / "harness" / name for name in ("model_digest.c", "sha256.c")),
    ROOT / "tests" / "firmware" / "shim.c",
]
INCLUDES = [FIRMWARE / "include", FIRMWARE / "src", FIRMWARE / "harness"]

BUILDS = {
    "plain": ["-O2"],
    "undefined": ["-O1", "-g", "-fsanitize=undefined"],
    "address": ["-O1", "-g", "-fsanitize=address"],
}
COMPILER = os.environ.get("CC", "cc")
INSTALL = "install with: sudo apt-get install --no-install-recommends gcc libc6-dev"
NO_COMPILER = None if shutil.which(COMPILER) else f"{COMPILER} is missing; {INSTALL}"

BLOCK_ROWS = 8


def compile_library(build: str, directory: Path) -> Path:
    """Compiles all sources into one shared object; warnings are errors."""
    library = directory / f"libquantgru_{build}.so"
    warnings = ["-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
    includes = [f"-I{folder}" for folder in INCLUDES]
    command = [COMPILER, "-std=c99", *warnings, *BUILDS[build], "-shared", "-fPIC", *includes, *map(str, SOURCES)]
    result = subprocess.run([*command, "-o", str(library)], capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{result.stderr}")
    return library


@functools.cache
def load_library(build: str) -> ctypes.CDLL:
    """Returns a build of the library, compiled once a process, with the types of its functions set."""
    directory = tempfile.TemporaryDirectory(prefix="quantgru_test_")
    library = ctypes.CDLL(str(compile_library(build, Path(directory.name))))
    finalize(library, directory.cleanup)
    for name, (result, *arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    for i, structure in enumerate(_STRUCTURES):
        ours, theirs = ctypes.sizeof(structure), library.shim_sizes(i)
        assert ours == theirs, f"{structure.__doc__}: {theirs} bytes in quantgru.h, {ours} in {__name__}; change both"
    return library


# ---- descriptors, as in quantgru.h --------------------------------------------------------------------------------


class CMatrix(Structure):
    """qg_matrix"""

    _fields_ = (
        ("codes", POINTER(c_int8)),
        ("multipliers", POINTER(c_uint16)),
        ("shifts", POINTER(c_uint8)),
        ("n_rows", c_uint16),
        ("n_columns", c_uint16),
        ("left_shift", c_uint8),
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

    _fields_ = (("merge", c_void_p), ("merge_kind", c_uint8), ("one_vector", c_uint8))


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
        ("rows", POINTER(c_int16)),
        ("row_values", c_uint16),
        ("most_steps", c_uint16),
    )


class CSelfTest(Structure):
    """qg_selftest_vector"""

    _fields_ = (("inputs", POINTER(c_int16)), ("check", c_uint32), ("n_steps", c_uint16))


# In the order of shim_sizes.
_STRUCTURES = (
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

_S16, _U16, _MODEL, _SCRATCH = POINTER(c_int16), POINTER(c_uint16), POINTER(CModelDescriptor), POINTER(CScratch)
_WORK, _SELFTEST = POINTER(CWork), POINTER(CSelfTest)

_FUNCTIONS = {  # result, arguments
    "shim_round_shift": (c_int32, c_int32, c_uint8),
    "shim_saturate16": (c_int16, c_int32),
    "shim_mul_shift16": (c_int32, c_int32, c_uint16),
    "shim_requantize": (c_int32, c_int32, c_uint8, c_uint16, c_uint8),
    "shim_reset_product": (c_int32, c_int32, c_uint16),
    "shim_sigmoids": (None, c_int32, c_int32, _U16),
    "shim_tanhs": (None, c_int32, c_int32, _S16),
    "shim_sizes": (c_size_t, c_int32),
    "shim_overflow": (c_int32, c_int32),
    "shim_read": (c_int32, POINTER(c_int32), c_int32),
    "shim_step": (None, _MODEL, _S16, _S16, _U16, _SCRATCH),
    "qg_sigmoid": (c_uint16, c_int32),
    "qg_hard_sigmoid": (c_uint16, c_int32),
    "qg_tanh": (c_int16, c_int32),
    "qg_dense_sigmoid": (c_int16, c_int32),
    "qg_linear": (c_int16, c_int32),
    "qg_relu": (c_int16, c_int32),
    "qg_merge_mean": (c_int16, c_int16, c_int16),
    "qg_merge_product": (c_int16, c_int16, c_int16),
    "qg_look_up": (None, POINTER(CEmbedding), _S16, _S16),
    "qg_input_from_counts": (c_int16, c_int32, c_int8),
    "qg_crc32": (c_uint32, c_uint32, POINTER(c_uint8), c_size_t),
    "qg_reset": (None, _MODEL, _S16, _U16),
    "qg_output": (None, _MODEL, _S16, _SCRATCH, _S16),
    "qg_step_check": (c_uint32, _MODEL, _S16, _U16, _S16, c_uint32),
    "qg_selftest": (c_int8, _MODEL, _SELFTEST, _S16, _U16, _SCRATCH, _S16, _S16),
    "qg_run": (c_int8, _MODEL, _S16, c_uint16, _WORK, _S16),
    "qg_run_selftest": (c_int8, _MODEL, _SELFTEST, _WORK, _S16, _S16),
    "model_digest": (None, _MODEL, POINTER(c_uint8)),
}


# ---- a model in memory --------------------------------------------------------------------------------------------


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


def _array(ctype: type, values: Sequence[int]) -> ctypes.Array:
    return (ctype * len(values))(*values)


def _matrix(matrix: Matrix, n_sections: int) -> CMatrix:
    rows = matrix.codes.tolist()
    n = len(rows) // n_sections
    codes = [code for section in range(n_sections) for code in section_codes(rows[section * n : (section + 1) * n])]
    return CMatrix(
        _array(c_int8, codes),
        _array(c_uint16, matrix.multiplier.tolist()),
        _array(c_uint8, matrix.shift.tolist()),
        matrix.n_rows,
        matrix.n_columns,
        matrix.left_shift,
    )


def _address(library: ctypes.CDLL, name: str) -> c_void_p:
    return ctypes.cast(getattr(library, name), c_void_p)


_GATES = {"sigmoid": "qg_sigmoid", "hard_sigmoid": "qg_hard_sigmoid"}  # numbers of R17 are the order
_CANDIDATES = {
    "tanh": "qg_tanh",
    "relu": "qg_relu",
    "linear": "qg_linear",
    "sigmoid": "qg_dense_sigmoid",
    "hard_tanh": "qg_linear",
}
_ACTIVATIONS = {"linear": "qg_linear", "relu": "qg_relu", "sigmoid": "qg_dense_sigmoid", "tanh": "qg_tanh"}
_MERGES = {"concat": None, "sum": "qg_merge_mean", "mul": "qg_merge_product", "ave": "qg_merge_mean"}
_KINDS = {IntGru: 1, IntDense: 2, IntEmbedding: 3, IntReverse: 4, IntBidirectional: 5}


def _number(names: dict[str, object], name: str) -> int:
    return list(names).index(name)


def _gru(library: ctypes.CDLL, gru: IntGru) -> CGru:
    return CGru(
        _address(library, f"qg_gru_reset_{gru.reset}"),
        _address(library, _GATES[gru.gate]),
        _address(library, _CANDIDATES[gru.candidate]),
        _matrix(gru.input, 3),
        _matrix(gru.recurrent, 3),
        _array(c_int32, gru.bias.tolist()),
        _array(c_int32, gru.recurrent_bias.tolist()) if gru.reset == "after" else None,
        _array(c_int16, gru.initial_state.tolist()) if gru.initial_state.any() else None,
        gru.n_units,
        0 if gru.candidate in ("relu", "linear") else 15 - gru.state_fraction_bits,
        gru.state_fraction_bits,
        _number(_GATES, gru.gate),
        _number(_CANDIDATES, gru.candidate),
    )


def _dense(library: ctypes.CDLL, dense: IntDense) -> CDense:
    return CDense(
        _address(library, _ACTIVATIONS[dense.activation]),
        _matrix(dense.matrix, 1),
        _array(c_int32, dense.bias.tolist()),
        _number(_ACTIVATIONS, dense.activation),
        dense.output_fraction_bits,
    )


def embedding_descriptor(embedding: IntEmbedding) -> CEmbedding:
    """qg_embedding of a layer."""
    return CEmbedding(_array(c_int8, embedding.codes.ravel().tolist()), embedding.n_tokens, embedding.n_outputs)


def _bidirectional(library: ctypes.CDLL, layer: IntBidirectional) -> CBidirectional:
    merge = _MERGES[layer.merge]
    return CBidirectional(_address(library, merge) if merge else None, _number(_MERGES, layer.merge), layer.final)


def _of_kind(layers: Sequence[IntLayer], kind: type) -> list:
    return [layer for layer in layers if isinstance(layer, kind)]


def _descriptor(library: ctypes.CDLL, model: IntModel) -> CModelDescriptor:
    plain = all(isinstance(layer, (IntGru, IntReverse)) for layer in model.body)
    dense = (CDense * len(model.dense))(*(_dense(library, layer) for layer in model.dense))
    n_body_dense = len(model.dense) - len(model.head)
    both = [_bidirectional(library, layer) for layer in _of_kind(model.layers, IntBidirectional)]
    return CModelDescriptor(
        _address(library, "qg_step" if plain else "qg_step_layers") if model.streaming else None,
        _array(c_uint8, [_KINDS[type(layer)] for layer in model.layers]),
        (CGru * len(model.grus))(*(_gru(library, gru) for gru in model.grus)),
        dense,
        ctypes.cast(ctypes.byref(dense, n_body_dense * ctypes.sizeof(CDense)), POINTER(CDense)),
        ctypes.pointer(embedding_descriptor(model.embedding)) if model.embedding else None,
        (CBidirectional * len(both))(*both),
        _array(c_int8, model.input_fraction_bits.tolist()),
        _array(c_uint8, model.digest),
        len(model.layers),
        len(model.grus),
        len(model.head),
        model.last_step,
        model.output_fraction_bits,
        model.n_inputs,
        model.n_units,
        model.n_outputs,
    )


def _scratch(work: WorkShape) -> CScratch:
    gates = CGates((c_uint16 * work.units)(), (c_uint16 * work.units)(), (c_int16 * work.units)())
    vectors = [(c_int16 * work.vector_width)() if i < work.vectors else None for i in range(2)]
    return CScratch(gates, (c_int16 * work.product_units)(), (POINTER(c_int16) * 2)(*vectors))


class CModel:
    """A model as descriptors, with state and scratch of exactly the sizes that exported headers give them."""

    def __init__(self, library: ctypes.CDLL, model: IntModel) -> None:
        self.library = library
        self.units = [gru.n_units for gru in model.grus]
        n_units, self.n_inputs = model.n_units, model.n_inputs
        self.descriptor = _descriptor(library, model)
        self.h, self.residual = (c_int16 * n_units)(), (c_uint16 * n_units)()
        self.outputs = (c_int16 * model.n_outputs)()
        self.scratch = _scratch(work_shape(model))

    def reset(self) -> None:
        """qg_reset"""
        self.library.qg_reset(self.descriptor, self.h, self.residual)

    def step(self, x: Sequence[int], check: int = 0) -> oracle.Step:
        """The model's step, qg_output and qg_step_check on the present state."""
        self.library.shim_step(self.descriptor, _array(c_int16, x), self.h, self.residual, self.scratch)
        self.library.qg_output(self.descriptor, self.h, self.scratch, self.outputs)
        check = self.library.qg_step_check(self.descriptor, self.h, self.residual, self.outputs, check)
        n_units, gates = sum(self.units), self.scratch.gates
        arrays = (self.h, self.residual, gates.u[:n_units], gates.r[:n_units], gates.n[:n_units])
        h, residual, u, r, n = map(self._layers, arrays)
        return oracle.Step(oracle.State(h, residual), u, r, n, tuple(self.outputs), check)

    def run(self, inputs: Sequence[Sequence[int]]) -> list[oracle.Step]:
        """All steps of one sequence, from the reset, in the order in which the device gets them."""
        self.reset()
        steps, check = [], 0
        for x in inputs:
            steps.append(self.step(x, check))
            check = steps[-1].check
        return steps

    def selftest(self, inputs: Sequence[Sequence[int]], check: int) -> int:
        """qg_selftest with these inputs and this expected check value."""
        flat = _array(c_int16, [v for x in inputs for v in x])
        vector = CSelfTest(flat, check, len(inputs))
        x = (c_int16 * self.n_inputs)()
        return self.library.qg_selftest(self.descriptor, vector, self.h, self.residual, self.scratch, x, self.outputs)

    def digest(self) -> str:
        """model_digest of the test firmware, hexadecimal."""
        digest = (c_uint8 * 32)()
        self.library.model_digest(self.descriptor, digest)
        return bytes(digest).hex()

    def _layers(self, values: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """[all units] as [layer][unit]"""
        values, layers = tuple(values), []
        for n in self.units:
            layers.append(values[:n])
            values = values[n:]
        return tuple(layers)


class CSequenceModel:
    """A model that needs whole sequences, as descriptors, with work space of exactly the sizes of exported headers."""

    def __init__(self, library: ctypes.CDLL, model: IntModel, most_steps: int) -> None:
        self.library, self.model = library, model
        self.descriptor = _descriptor(library, model)
        work = work_shape(model)
        self.work = CWork(
            _scratch(work),
            (c_int16 * work.state_units)(),
            (c_uint16 * work.units)(),
            (c_int16 * (most_steps * work.row_values))() if work.row_values else None,
            work.row_values,
            most_steps,
        )

    def run(self, inputs: Sequence[Sequence[int]]) -> tuple[int, tuple[tuple[int, ...], ...]]:
        """qg_run: what it returns, and the outputs."""
        rows = 1 if self.model.last_step else len(inputs)
        outputs = (c_int16 * (rows * self.model.n_outputs))()
        flat = _array(c_int16, [v for x in inputs for v in x])
        result = self.library.qg_run(self.descriptor, flat, len(inputs), self.work, outputs)
        n = self.model.n_outputs
        return result, tuple(tuple(outputs[i * n : (i + 1) * n]) for i in range(rows))

    def selftest(self, inputs: Sequence[Sequence[int]], check: int) -> int:
        """qg_run_selftest with these inputs and this expected check value."""
        rows = 1 if self.model.last_step else len(inputs)
        vector = CSelfTest(_array(c_int16, [v for x in inputs for v in x]), check, len(inputs))
        x = (c_int16 * (len(inputs) * self.model.n_inputs))()
        outputs = (c_int16 * (rows * self.model.n_outputs))()
        return self.library.qg_run_selftest(self.descriptor, vector, self.work, x, outputs)
