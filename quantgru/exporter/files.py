"""An integer model as C files: a pure function. Generated code holds no date, path or user name."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from quantgru.c_names import c_name, comment_text
from quantgru.exporter.layout import c_array, memory_order
from quantgru.firmware_files import firmware_directory
from quantgru.int_model import IntDense, IntGru, IntModel, Matrix
from quantgru.int_model.cost import cost, scratch_shape
from quantgru.int_model.contract import ACTIVATION_NUMBERS, SPEC_MAJOR, SPEC_MINOR

_TEMPLATES: Final = Environment(
    loader=PackageLoader("quantgru.exporter"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # this is C, not HTML
)

# The library's functions for the activations of dense layers.
_ACTIVATIONS: Final = {"linear": "qg_linear", "relu": "qg_relu", "sigmoid": "qg_dense_sigmoid", "tanh": "qg_tanh"}

# The layout of descriptors and the order of codes in memory that the templates write: QG_EXPORT_FORMAT.
_EXPORT_FORMAT: Final = 1

# What an AVR can read: 16-bit addresses, and no array beyond half of them. The library's table needs some, too.
_AVR_ARRAY_BYTES: Final = 32767
_AVR_CONSTANT_BYTES: Final = 64000


def export_files(model: IntModel, name: str) -> dict[str, str]:
    """{path: text} of the model and of the kernel library. Raises ConfigError for a name that is no C identifier."""
    library = _library_files()
    sources = sorted(path for path in library if path.endswith(".c"))
    values = _template_values(model, c_name(name)) | {"library_sources": sources}
    model_files = {
        f"{name}.h": "model.h.j2",
        f"{name}.c": "model.c.j2",
        f"{name}_selftest.c": "selftest.c.j2",
        f"{name}_float.h": "float.h.j2",
        f"{name}_example.c": "example.c.j2",
        "CMakeLists.txt": "CMakeLists.txt.j2",
    }
    rendered = {path: _TEMPLATES.get_template(template).render(values) for path, template in model_files.items()}
    return rendered | library


def _library_files() -> dict[str, str]:
    firmware = firmware_directory()
    return {
        f"quantgru/{folder}/{path.name}": path.read_text(encoding="utf-8")
        for folder in ("include", "src")
        for path in sorted((firmware / folder).glob("[!.]*.[ch]"))
    }


def _template_values(model: IntModel, name: str) -> dict[str, Any]:
    scratch = scratch_shape(model)
    return {
        "c_array": c_array,
        "name": name,
        "NAME": name.upper(),
        "description": _description(model),
        "digest": model.digest.hex(),
        "digest_bytes": model.digest,
        "spec_major": SPEC_MAJOR,
        "spec_minor": SPEC_MINOR,
        "export_format": _EXPORT_FORMAT,
        "version_mismatch": _version_mismatch(),
        "avr_excess": _avr_excess(model),
        "last_step": model.last_step,
        "n_inputs": model.n_inputs,
        "n_outputs": model.n_outputs,
        "n_units": model.n_units,
        "input_fraction_bits": model.input_fraction_bits.tolist(),
        "output_fraction_bits": model.output_fraction_bits,
        "input_units": ", ".join(map(comment_text, model.input_units)),
        "output_units": ", ".join(map(comment_text, model.output_units)),
        "input_scales": [_float_literal(bits) for bits in model.input_fraction_bits.tolist()],
        "output_scale": _float_literal(-model.output_fraction_bits),
        "scratch_bytes": cost(model).scratch_bytes,
        "product_units": scratch.product_units,
        "dense_buffers": scratch.dense_buffers,
        "dense_width": scratch.dense_width,
        "grus": [_gru(i, layer) for i, layer in enumerate(model.grus)],
        "head": [_dense(i, layer) for i, layer in enumerate(model.head)],
        "selftest_inputs": model.selftest.inputs.ravel().tolist(),
        "selftest_check": model.selftest.check,
        "selftest_steps": model.selftest.inputs.shape[0],
    }


def _version_mismatch() -> str:
    """Preprocessor condition that is true for a library that this code must not meet."""
    # No condition for minor 0: every library has at least that, and comparing an unsigned number with 0 is a warning.
    minor = f" || QG_SPEC_MINOR < {SPEC_MINOR}" if SPEC_MINOR else ""
    return f"QG_SPEC_MAJOR != {SPEC_MAJOR}{minor} || QG_EXPORT_FORMAT != {_EXPORT_FORMAT}"


def _avr_excess(model: IntModel) -> str:
    """What makes the constants too large for an AVR; empty if nothing does."""
    matrices = [matrix for gru in model.grus for matrix in (gru.input, gru.recurrent)]
    matrices += [dense.matrix for dense in model.head]
    largest = max(matrix.codes.nbytes for matrix in matrices)
    total = cost(model).constant_bytes
    if largest <= _AVR_ARRAY_BYTES and total <= _AVR_CONSTANT_BYTES:
        return ""
    return f"{total} bytes of constants, the largest array {largest}"


def _description(model: IntModel) -> str:
    layers = [f"GRU of {layer.n_units}" for layer in model.grus]
    layers += [f"dense of {layer.n_outputs}" for layer in model.head]
    return f"{model.n_inputs} inputs, {', '.join(layers)}."


def _float_literal(exponent: int) -> str:
    """2**exponent as a C float literal; repr is exact for powers of two."""
    return f"{2.0**exponent!r}f"


def _comment(kind: str, layer: IntGru | IntDense, width: int, rest: str) -> str:
    return f"{kind} {comment_text(layer.name)}: {layer.n_inputs} inputs, {width} {rest}"


def _gru(i: int, layer: IntGru) -> dict[str, Any]:
    return {
        "prefix": f"gru{i}",
        "comment": _comment("GRU", layer, layer.n_units, f"units, reset {layer.reset}"),
        "reset": layer.reset,
        "n_units": layer.n_units,
        "input": _matrix(layer.input, layer.n_units),
        "recurrent": _matrix(layer.recurrent, layer.n_units),
        "bias": layer.bias.tolist(),
        "recurrent_bias": layer.recurrent_bias.tolist(),
    }


def _dense(i: int, layer: IntDense) -> dict[str, Any]:
    return {
        "prefix": f"dense{i}",
        "comment": _comment("Dense", layer, layer.n_outputs, f"outputs, {layer.activation}"),
        "activation": ACTIVATION_NUMBERS[layer.activation],
        "function": _ACTIVATIONS[layer.activation],
        "output_fraction_bits": layer.output_fraction_bits,
        "matrix": _matrix(layer.matrix, layer.n_outputs),
        "bias": layer.bias.tolist(),
    }


def _matrix(matrix: Matrix, section_rows: int) -> dict[str, Any]:
    return {
        "codes": np.asarray(memory_order(matrix.codes, section_rows)).tolist(),
        "multipliers": matrix.multiplier.tolist(),
        "shifts": matrix.shift.tolist(),
        "n_rows": matrix.n_rows,
        "n_columns": matrix.n_columns,
        "left_shift": matrix.left_shift,
    }
