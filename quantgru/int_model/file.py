"""Integer models as files (`.qgru`): a strict reading, in which every field is known and every invariant holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from quantgru import container
from quantgru.errors import ModelError
from quantgru.int_model.contract import SPEC_MAJOR, SPEC_MINOR
from quantgru.int_model.file_layers import read_layer, write_layer
from quantgru.int_model.int_model import IntModel, SelfTest
from quantgru.int_model.versions import first_minor, stated_minor

FORMAT: Final = 2
_FORMATS_READ: Final = (1, 2)  # 1: only what SPEC 1.0 has, and no mask value

_HEADER: Final = frozenset(
    (
        "kind",
        "format",
        "spec",
        "name",
        "digest",
        "last_step",
        "selftest_check",
        "layers",
        "notes",
        "input_units",
        "output_units",
        "mask_value",
    )
)


def save(model: IntModel, path: str | Path) -> None:
    """Writes `model`. Raises ModelError where the path cannot be written."""
    arrays: container.Arrays = {
        "input_fraction_bits": model.input_fraction_bits,
        "selftest": model.selftest.inputs,
    }
    layers = [write_layer(layer, f"layers.{i}", arrays) for i, layer in enumerate(model.layers)]
    header = {
        "kind": "integer model",
        "format": FORMAT,
        "spec": [SPEC_MAJOR, stated_minor(model)],
        "name": model.name,
        "digest": model.digest.hex(),
        "last_step": model.last_step,
        "selftest_check": model.selftest.check,
        "layers": layers,
        "notes": dict(model.notes),
        "input_units": list(model.input_units),
        "output_units": list(model.output_units),
        "mask_value": model.mask_value,
    }
    container.save(path, header, arrays)


def load(path: str | Path) -> IntModel:
    """Reads a file that `save` wrote. Raises ModelError."""
    header, arrays = container.load(path, "model")
    where = f"model {path}"
    if header.get("kind") != "integer model":
        found = header.get("kind", "something else")
        raise ModelError(f"{where}: holds {found!r}, expected an integer model (.qgru); `quantgru quantize` makes one")
    _check_versions(header, where)
    try:
        model = _model(header, arrays)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None
    except KeyError as error:
        raise ModelError(f"{where}: field or array {error} is missing; the file is damaged") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{where}: a field has the wrong type ({error}); the file is damaged") from None
    if header["spec"][1] < first_minor(model):
        raise ModelError(
            f"{where}: made for numeric contract {SPEC_MAJOR}.{header['spec'][1]}, which does not have all that "
            "it uses; the file is damaged"
        )
    if model.digest.hex() != header["digest"]:
        raise ModelError(
            f"{where}: its numbers have the digest {model.digest.hex()[:16]!r}, the file says "
            f"{str(header['digest'])[:16]!r}; the file is damaged"
        )
    return model


def _model(header: dict[str, Any], arrays: container.Arrays) -> IntModel:
    if header["format"] == 1:
        container.check_fields(header, _HEADER - {"mask_value"}, "header")
        header = header | {"mask_value": None}
    container.check_fields(header, _HEADER, "header")
    layers = tuple(read_layer(entry, f"layers.{i}", arrays) for i, entry in enumerate(header["layers"]))
    selftest = SelfTest(arrays.pop("selftest"), header["selftest_check"])
    input_fraction_bits = arrays.pop("input_fraction_bits")
    container.check_nothing_left(arrays)
    mask_value = header["mask_value"]
    if mask_value is not None and type(mask_value) not in (int, float):
        raise TypeError(f"mask_value is {mask_value!r}")
    return IntModel(
        layers,
        input_fraction_bits,
        header["last_step"],
        selftest,
        name=header["name"],
        notes=header["notes"],
        input_units=header["input_units"],
        output_units=header["output_units"],
        mask_value=mask_value,
    )


def _check_versions(header: dict[str, Any], where: str) -> None:
    if type(header.get("format")) is not int or header["format"] not in _FORMATS_READ:
        raise ModelError(f"{where}: file format {header.get('format')!r}, this version reads {FORMAT}; update quantgru")
    spec = header.get("spec")
    if not (isinstance(spec, list) and len(spec) == 2 and all(type(number) is int and number >= 0 for number in spec)):
        raise ModelError(f"{where}: spec version {spec!r}, expected [major, minor]; the file is damaged")
    if spec[0] != SPEC_MAJOR or spec[1] > SPEC_MINOR:
        raise ModelError(
            f"{where}: made for numeric contract {spec[0]}.{spec[1]}, this version computes "
            f"{SPEC_MAJOR}.{SPEC_MINOR}; quantize the model again, or update quantgru"
        )
