"""An integer model as C files: a pure function. Generated code holds no date, path or user name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from quantgru.c_names import c_name, comment_text
from quantgru.errors import ConfigError
from quantgru.exporter.layers import constants_in_words, layer_values, layers_in_words
from quantgru.exporter.layout import c_array
from quantgru.firmware_files import firmware_directory
from quantgru.fixed import Format
from quantgru.int_model import IntModel
from quantgru.int_model.avr import avr_excess
from quantgru.int_model.contract import SPEC_MAJOR
from quantgru.int_model.cost import cost, work_shape
from quantgru.int_model.packing import Packing
from quantgru.int_model.versions import stated_minor

_TEMPLATES: Final = Environment(
    loader=PackageLoader("quantgru.exporter"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # this is C, not HTML
)

# The layout of descriptors and the order of codes in memory that the templates write: QG_EXPORT_FORMAT.
_EXPORT_FORMAT: Final = 4

_MOST_STEPS: Final = 2**16 - 1  # the library counts them in 16 bits
_DEFAULT_STEPS: Final = 64


def export_files(
    model: IntModel, name: str, *, max_steps: int | None = None, packing: Packing = "auto"
) -> dict[str, str]:
    """{path: text} of the model and of the kernel library, with a CMakeLists.txt.

    max_steps  the longest sequence, for a model that is run with whole ones. None: the longest of the calibration data
    packing    as in `export`

    Raises ConfigError for a name that is no C identifier, for max_steps out of range, where a model has no use for it,
    and for an unknown packing.
    """
    library = {f"quantgru/{path}": text for path, text in library_files().items()}
    sources = sorted(path for path in library if path.endswith(".c"))
    values = template_values(model, name, max_steps, packing) | {"library_sources": sources}
    templates = model_templates(model, name) | {
        f"{name}_example.c": "step_example.c" if model.streaming else "sequence_example.c",
        "CMakeLists.txt": "CMakeLists.txt",
    }
    return render(templates, values) | library


def model_templates(model: IntModel, name: str) -> dict[str, str]:
    """{path of a file of the model: its template}"""
    kind = "step" if model.streaming else "sequence"
    log = {f"{name}_log.h": "log.h"} if model.streaming else {}
    return {
        f"{name}.h": f"{kind}_model.h",
        f"{name}.c": "step_model.c" if model.streaming else "model.c",
        f"{name}_selftest.c": f"{kind}_selftest.c",
        f"{name}_float.h": "float.h",
        **log,
    }


def render(templates: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, str]:
    """{path of a file: its text} from {path of a file: its template}."""
    return {path: _TEMPLATES.get_template(f"{template}.j2").render(values) for path, template in templates.items()}


def library_files() -> dict[str, str]:
    """{path: text} of the kernel library: include/ and src/."""
    firmware = firmware_directory()
    return {
        f"{folder}/{path.name}": path.read_text(encoding="utf-8")
        for folder in ("include", "src")
        for path in sorted((firmware / folder).glob("[!.]*.[ch]"))
    }


def template_values(model: IntModel, name: str, max_steps: int | None, packing: Packing) -> dict[str, Any]:
    """What templates say of a model. Raises ConfigError as export_files does."""
    values = _model_values(model, c_name(name), packing)
    if not model.streaming:
        return values | _sequence_values(model, max_steps)
    if max_steps is not None:
        raise ConfigError(f"model {name!r}: runs step by step, any number of steps; leave out max_steps={max_steps}")
    return values


def _model_values(model: IntModel, name: str, packing: Packing) -> dict[str, Any]:
    known = cost(model, packing)
    return {
        "c_array": c_array,
        "name": name,
        "NAME": name.upper(),
        "description": layers_in_words(model),
        "notes": _notes(model),
        "digest": model.digest.hex(),
        "digest_bytes": model.digest,
        "spec_major": SPEC_MAJOR,
        "spec_minor": stated_minor(model),
        "export_format": _EXPORT_FORMAT,
        "version_mismatch": _version_mismatch(model),
        "avr_excess": avr_excess(model, packing),
        "last_step": model.last_step,
        "n_inputs": model.n_inputs,
        "n_outputs": model.n_outputs,
        "n_units": model.n_units,
        "input_fraction_bits": model.input_fraction_bits.tolist(),
        "output_fraction_bits": model.output_fraction_bits,
        "state_formats": _state_formats(model),
        "input_units": ", ".join(map(comment_text, model.input_units)),
        "output_units": ", ".join(map(comment_text, model.output_units)),
        "input_scales": [_float_literal(bits) for bits in model.input_fraction_bits.tolist()],
        "output_scale": _float_literal(-model.output_fraction_bits),
        "constants": constants_in_words(model, packing),
        "state_bytes": known.state_bytes,
        "scratch_bytes": known.scratch_bytes,
        "work": work_shape(model),
        "saturating": model.saturating,
        "selftest_inputs": model.selftest.inputs.ravel().tolist(),
        "selftest_check": model.selftest.check,
        "selftest_steps": model.selftest.inputs.shape[0],
        "usual_steps": _longest_seen(model),
        **layer_values(model, packing),
    }


def _sequence_values(model: IntModel, max_steps: int | None) -> dict[str, Any]:
    """What belongs to a model that is run with whole sequences only. Raises ConfigError."""
    selftest_steps = model.selftest.inputs.shape[0]
    row_bytes = cost(model).row_bytes
    if max_steps is None:
        max_steps = max(_longest_seen(model), selftest_steps) if row_bytes else _MOST_STEPS
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or not 1 <= max_steps <= _MOST_STEPS:
        raise ConfigError(f"max_steps {max_steps!r}, expected a number of steps, 1 ... {_MOST_STEPS}")
    selftest_values = selftest_steps * model.n_inputs + (1 if model.last_step else selftest_steps) * model.n_outputs
    return {"max_steps": max_steps, "row_bytes": row_bytes, "selftest_bytes": 2 * selftest_values}


def _longest_seen(model: IntModel) -> int:
    """Steps of the longest sequence of the calibration data. Notes may be anything: no digest covers them."""
    calibration = model.notes.get("calibration")
    longest = calibration.get("longest") if isinstance(calibration, dict) else None
    return longest if type(longest) is int and 1 <= longest <= _MOST_STEPS else _DEFAULT_STEPS


def _notes(model: IntModel) -> list[str]:
    """What a caller must know of the inputs and the state, a sentence each."""
    notes = []
    if model.embedding is not None:
        last = model.embedding.n_tokens - 1
        notes.append(f"The input is the number of a token, 0 ... {last}; others count as the nearest of these.")
    if model.reversed_input:
        notes.append("Steps are given from the last to the first: the model reads sequences from their end.")
    if model.mask_value is not None:
        padding = "the token" if model.embedding is not None else "each input, in real units,"
        notes.append(f"A step at which {padding} is {model.mask_value:g} is padding: leave it out, it is no step.")
    if any(gru.initial_state is not None for gru in model.grus):
        notes.append("A sequence starts from an initial state that belongs to the model, not from zeros.")
    return notes


def _state_formats(model: IntModel) -> str:
    """Of h and n, in the order of the units."""
    units: list[tuple[str, int]] = []
    for gru in model.grus:
        name = str(Format(16, gru.state_fraction_bits))
        if units and units[-1][0] == name:
            units[-1] = (name, units[-1][1] + gru.n_units)
        else:
            units.append((name, gru.n_units))
    return units[0][0] if len(units) == 1 else ", then ".join(f"{n} of {name}" for name, n in units)


def _version_mismatch(model: IntModel) -> str:
    """Preprocessor condition that is true for a library that this code must not meet."""
    return (
        f"QG_SPEC_MAJOR != {SPEC_MAJOR} || QG_SPEC_MINOR < {stated_minor(model)} || "
        f"QG_EXPORT_FORMAT != {_EXPORT_FORMAT}"
    )


def _float_literal(exponent: int) -> str:
    """2**exponent as a C float literal; repr is exact for powers of two."""
    return f"{2.0**exponent!r}f"
