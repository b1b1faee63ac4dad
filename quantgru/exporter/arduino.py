"""An integer model as an Arduino library, which PlatformIO takes, too: a pure function.

Arduino compiles every source below src/ with src/ alone in the include path: model and kernel library lie there side by
side. A sketch may have sources of its own below its src/: there the test firmware is.
"""

from __future__ import annotations

import re
from typing import Any, Final

from quantgru.errors import ConfigError
from quantgru.exporter.files import library_files, model_templates, render, template_values
from quantgru.firmware_files import firmware_directory
from quantgru.int_model import IntModel
from quantgru.int_model.packing import Packing

_TEST_FIRMWARE: Final = "examples/test_firmware"

# A header of the library with one of these names would hide that of the core, or of a library that comes with it. File
# systems may ignore case.
_CORE_HEADERS: Final = frozenset(
    """
    arduino binary cdc client eeprom hardwareserial hardwareserial_private hid ipaddress new pins_arduino platform
    pluggableusb print printable server softwareserial spi stream udp usbapi usbcore usbdesc wcharacter winterrupts wire
    wiring_private wmath wstring
    """.split()
)

_COMMENT: Final = re.compile(r"/\*.*?\*/", re.DOTALL)


def arduino_files(
    model: IntModel, name: str, *, max_steps: int | None = None, packing: Packing = "auto"
) -> dict[str, str]:
    """{path: text} of the library: metadata, sources, and sketches as examples. Arguments as in export_files.

    Raises ConfigError as export_files does, and for a name that the Arduino core or the test firmware has.
    """
    values = template_values(model, name, max_steps, packing)
    _check_name(name)
    source = render(model_templates(model, name), values)
    source |= {path.split("/")[1]: text for path, text in library_files().items()}
    kind = "step" if model.streaming else "sequence"
    templates = {
        "library.properties": "arduino/library.properties",
        "library.json": "arduino/library.json",
        "examples/sensor/sensor.ino": f"arduino/{kind}_sketch.ino",
    }
    files = render(templates, values | _sketch_values(model, values))
    files |= {f"src/{path}": text for path, text in source.items()}
    return files | _test_firmware(model, values, packing)


def _sketch_values(model: IntModel, values: dict[str, Any]) -> dict[str, Any]:
    """What the sketch prints, and after how many steps."""
    is_classifier = model.last_step and model.n_outputs > 1
    return {
        "is_classifier": is_classifier,
        "result": "the class" if is_classifier else "the outputs",
        "steps": min(values["usual_steps"], values.get("max_steps", values["usual_steps"])),
    }


def _test_firmware(model: IntModel, values: dict[str, Any], packing: Packing) -> dict[str, str]:
    """A sketch of the test firmware. It has its own names for the model, which its model.h translates."""
    name, upper_name = values["name"], values["NAME"]
    sources = _test_firmware_sources()
    files = render({f"{_TEST_FIRMWARE}/test_firmware.ino": "arduino/test_firmware.ino"}, values)
    files |= {f"{_TEST_FIRMWARE}/src/{path}": text for path, text in sources.items()}
    if name == "model":
        return files
    header = render(model_templates(model, "model"), template_values(model, "model", None, packing))["model.h"]
    found = sorted(set(re.findall(r"\b(model|MODEL)_(\w+)", _COMMENT.sub("", header))))
    names = {f"{prefix}_{rest}": f"{name if prefix == 'model' else upper_name}_{rest}" for prefix, rest in found}
    taken = set(re.findall(r"\w+", " ".join(sources.values()))).intersection(names.values())
    if taken:
        raise ConfigError(
            f"model name {name!r}: the test firmware has a {min(taken)} of its own; choose another with name= or --name"
        )
    del names["MODEL_H"]  # is no name for anything
    return files | render({f"{_TEST_FIRMWARE}/src/model.h": "arduino/model.h"}, values | {"names": names})


def _test_firmware_sources() -> dict[str, str]:
    """{name: text}; setup() and loop() of the sketch take the place of main()."""
    firmware = firmware_directory()
    folders = [firmware / "harness", firmware / "harness" / "compiled", firmware / "ports" / "arduino"]
    sources = sorted(path for folder in folders for path in folder.glob("[!.]*.*"))
    return {path.name: path.read_text(encoding="utf-8") for path in sources if path.name != "main.c"}


def _check_name(name: str) -> None:
    if name.lower() in _CORE_HEADERS:
        raise ConfigError(
            f"model name {name!r}: the Arduino core, or a library that comes with it, has a header of this name; "
            "choose another with name= or --name"
        )
