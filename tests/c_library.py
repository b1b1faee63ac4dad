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

from quantgru.int_model import IntDense, IntGru, IntModel, Matrix

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [*sorted((ROOT / "firmware" / "src").glob("*.c")), ROOT / "tests" / "firmware" / "shim.c"]
INCLUDES = [ROOT / "firmware" / "include", ROOT / "firmware" / "src"]

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
    for i, structure in enumerate((CMatrix, CGates, CGru, CDense, CModelDescriptor, CScratch, CSelfTest)):
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
        ("input", CMatrix),
        ("recurrent", CMatrix),
        ("bias", POINTER(c_int32)),
        ("recurrent_bias", POINTER(c_int32)),
        ("n_units", c_uint16),
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


class CModelDescriptor(Structure):
    """qg_model"""

    _fields_ = (
        ("grus", POINTER(CGru)),
        ("head", POINTER(CDense)),
        ("input_fraction_bits", POINTER(c_int8)),
        ("digest", POINTER(c_uint8)),
        ("n_grus", c_uint8),
        ("n_dense", c_uint8),
        ("last_step", c_uint8),
        ("output_fraction_bits", c_int8),
        ("n_inputs", c_uint16),
        ("n_units", c_uint16),
        ("n_outputs", c_uint16),
    )


class CScratch(Structure):
    """qg_scratch"""

    _fields_ = (("gates", CGates), ("product", POINTER(c_int16)), ("dense", POINTER(c_int16) * 2))


class CSelfTest(Structure):
    """qg_selftest_vector"""

    _fields_ = (("inputs", POINTER(c_int16)), ("check", c_uint32), ("n_steps", c_uint16))


_S16, _U16, _MODEL, _SCRATCH = POINTER(c_int16), POINTER(c_uint16), POINTER(CModelDescriptor), POINTER(CScratch)

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
    "qg_sigmoid": (c_uint16, c_int32),
    "qg_tanh": (c_int16, c_int32),
    "qg_dense_sigmoid": (c_int16, c_int32),
    "qg_linear": (c_int16, c_int32),
    "qg_relu": (c_int16, c_int32),
    "qg_input_from_counts": (c_int16, c_int32, c_int8),
    "qg_crc32": (c_uint32, c_uint32, POINTER(c_uint8), c_size_t),
    "qg_reset": (None, _MODEL, _S16, _U16),
    "qg_step": (None, _MODEL, _S16, _S16, _U16, _SCRATCH),
    "qg_output": (None, _MODEL, _S16, _SCRATCH, _S16),
    "qg_step_check": (c_uint32, _MODEL, _S16, _U16, _S16, c_uint32),
    "qg_selftest": (c_int8, _MODEL, POINTER(CSelfTest), _S16, _U16, _SCRATCH, _S16, _S16),
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


def _gru(library: ctypes.CDLL, gru: IntGru) -> CGru:
    return CGru(
        _address(library, f"qg_gru_reset_{gru.reset}"),
        _matrix(gru.input, 3),
        _matrix(gru.recurrent, 3),
        _array(c_int32, gru.bias.tolist()),
        _array(c_int32, gru.recurrent_bias.tolist()) if gru.reset == "after" else None,
        gru.n_units,
    )


_DENSE = {  # function, number of R17
    "linear": ("qg_linear", oracle.LINEAR),
    "relu": ("qg_relu", oracle.RELU),
    "sigmoid": ("qg_dense_sigmoid", oracle.SIGMOID),
    "tanh": ("qg_tanh", oracle.TANH),
}


def _dense(library: ctypes.CDLL, dense: IntDense) -> CDense:
    function, kind = _DENSE[dense.activation]
    return CDense(
        _address(library, function),
        _matrix(dense.matrix, 1),
        _array(c_int32, dense.bias.tolist()),
        kind,
        dense.output_fraction_bits,
    )


class CModel:
    """A model as descriptors, with state and scratch of exactly the sizes that quantgru.h asks for."""

    def __init__(self, library: ctypes.CDLL, model: IntModel) -> None:
        self.library = library
        self.units = [gru.n_units for gru in model.grus]
        n_units, self.n_inputs = model.n_units, model.n_inputs
        self.descriptor = CModelDescriptor(
            (CGru * len(model.grus))(*(_gru(library, gru) for gru in model.grus)),
            (CDense * len(model.head))(*(_dense(library, dense) for dense in model.head)),
            _array(c_int8, model.input_fraction_bits.tolist()),
            _array(c_uint8, model.digest),
            len(model.grus),
            len(model.head),
            model.last_step,
            model.output_fraction_bits,
            model.n_inputs,
            n_units,
            model.n_outputs,
        )
        self.h, self.residual = (c_int16 * n_units)(), (c_uint16 * n_units)()
        self.u, self.r, self.n = (c_uint16 * n_units)(), (c_uint16 * n_units)(), (c_int16 * n_units)()
        self.outputs = (c_int16 * model.n_outputs)()
        product = max((gru.n_units for gru in model.grus if gru.reset == "before"), default=0)
        inner = max((dense.n_outputs for dense in model.head[:-1]), default=0)
        self.scratch = CScratch(
            CGates(self.u, self.r, self.n),
            (c_int16 * product)(),
            (POINTER(c_int16) * 2)((c_int16 * inner)(), (c_int16 * inner)()),
        )

    def reset(self) -> None:
        """qg_reset"""
        self.library.qg_reset(self.descriptor, self.h, self.residual)

    def step(self, x: Sequence[int], check: int = 0) -> oracle.Step:
        """qg_step, qg_output and qg_step_check on the present state."""
        self.library.qg_step(self.descriptor, _array(c_int16, x), self.h, self.residual, self.scratch)
        self.library.qg_output(self.descriptor, self.h, self.scratch, self.outputs)
        check = self.library.qg_step_check(self.descriptor, self.h, self.residual, self.outputs, check)
        h, residual, u, r, n = map(self._layers, (self.h, self.residual, self.u, self.r, self.n))
        return oracle.Step(oracle.State(h, residual), u, r, n, tuple(self.outputs), check)

    def run(self, inputs: Sequence[Sequence[int]]) -> list[oracle.Step]:
        """All steps of one sequence, from the reset."""
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

    def _layers(self, values: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """[all units] as [layer][unit]"""
        values, layers = tuple(values), []
        for n in self.units:
            layers.append(values[:n])
            values = values[n:]
        return tuple(layers)
