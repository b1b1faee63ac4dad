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
from ctypes import POINTER, c_int8, c_int16, c_int32, c_size_t, c_uint8, c_uint16, c_uint32
from pathlib import Path
from weakref import finalize

import oracle
from c_descriptors import (
    STRUCTURES,
    CEmbedding,
    CModelDescriptor,
    CScratch,
    CSelfTest,
    CWork,
    array,
    model_descriptor,
    scratch_arrays,
)

from quantgru.int_model import IntModel
from quantgru.int_model.cost import work_shape

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
    for i, structure in enumerate(STRUCTURES):
        ours, theirs = ctypes.sizeof(structure), library.shim_sizes(i)
        assert ours == theirs, (
            f"{structure.__doc__}: {theirs} bytes in quantgru.h, {ours} in {structure.__module__}; change both"
        )
    return library


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
    "qg_signed_sigmoid": (c_int16, c_int32),
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
    "qg_saturated": (c_uint16, _MODEL, _S16),
    "qg_clipped": (c_uint16, _MODEL, _S16),
    "qg_run": (c_int8, _MODEL, _S16, c_uint16, _S16, _WORK, _S16),
    "qg_run_selftest": (c_int8, _MODEL, _SELFTEST, _WORK, _S16, _S16),
    "model_digest": (None, _MODEL, POINTER(c_uint8)),
}


# ---- models in memory -----------------------------------------------------------------------------------------------


class CModel:
    """A model as descriptors, with state and scratch of exactly the sizes that exported headers give them."""

    def __init__(self, library: ctypes.CDLL, model: IntModel) -> None:
        self.library = library
        self.units = [gru.n_units for gru in model.grus]
        n_units = model.n_units
        self.descriptor = model_descriptor(library, model)
        self.h, self.residual = (c_int16 * n_units)(), (c_uint16 * n_units)()
        self.outputs = (c_int16 * model.n_outputs)()
        self.scratch = scratch_arrays(work_shape(model))

    def reset(self) -> None:
        """qg_reset"""
        self.library.qg_reset(self.descriptor, self.h, self.residual)

    def step(self, x: Sequence[int], check: int = 0) -> oracle.Step:
        """The model's step, qg_output and qg_step_check on the present state."""
        self.library.shim_step(self.descriptor, array(c_int16, x), self.h, self.residual, self.scratch)
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

    def saturated(self) -> int:
        """qg_saturated after a step"""
        return self.library.qg_saturated(self.descriptor, self.scratch.gates.n)

    def digest(self) -> str:
        """model_digest of the test firmware, hexadecimal."""
        return _digest(self.library, self.descriptor)

    def _layers(self, values: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """[all units] as [layer][unit]"""
        values, layers = tuple(values), []
        for n in self.units:
            layers.append(values[:n])
            values = values[n:]
        return tuple(layers)


def _digest(library: ctypes.CDLL, descriptor: CModelDescriptor) -> str:
    digest = (c_uint8 * 32)()
    library.model_digest(descriptor, digest)
    return bytes(digest).hex()


class CSequenceModel:
    """A model that needs whole sequences, as descriptors, with work space of exactly the sizes of exported headers."""

    def __init__(self, library: ctypes.CDLL, model: IntModel, most_steps: int) -> None:
        self.library, self.model = library, model
        self.descriptor = model_descriptor(library, model)
        work = work_shape(model)
        self._saturated = c_uint16()
        self.work = CWork(
            scratch_arrays(work),
            (c_int16 * work.state_units)(),
            (c_uint16 * work.gate_units)(),
            ctypes.pointer(self._saturated),
            (c_int16 * (most_steps * work.row_values))() if work.row_values else None,
            work.row_values,
            most_steps,
        )

    @property
    def saturated(self) -> int:
        """What the last run counted."""
        return self._saturated.value

    def run(
        self, inputs: Sequence[Sequence[int]], initial_states: Sequence[Sequence[int]] | None = None
    ) -> tuple[int, tuple[tuple[int, ...], ...]]:
        """qg_run: what it returns, and the outputs."""
        rows = 1 if self.model.last_step else len(inputs)
        outputs = (c_int16 * (rows * self.model.n_outputs))()
        flat = array(c_int16, [v for x in inputs for v in x])
        h = None if initial_states is None else array(c_int16, [v for of_layer in initial_states for v in of_layer])
        result = self.library.qg_run(self.descriptor, flat, len(inputs), h, self.work, outputs)
        n = self.model.n_outputs
        return result, tuple(tuple(outputs[i * n : (i + 1) * n]) for i in range(rows))

    def digest(self) -> str:
        """model_digest of the test firmware, hexadecimal."""
        return _digest(self.library, self.descriptor)

    def selftest(self, inputs: Sequence[Sequence[int]], check: int) -> int:
        """qg_run_selftest with these inputs and this expected check value."""
        rows = 1 if self.model.last_step else len(inputs)
        vector = CSelfTest(array(c_int16, [v for x in inputs for v in x]), check, len(inputs))
        x = (c_int16 * (len(inputs) * self.model.n_inputs))()
        outputs = (c_int16 * (rows * self.model.n_outputs))()
        return self.library.qg_run_selftest(self.descriptor, vector, self.work, x, outputs)
