"""Exported files on disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from quantgru.container import current_umask, write_atomically
from quantgru.errors import ConfigError
from quantgru.exporter.arduino import arduino_files
from quantgru.exporter.files import export_files
from quantgru.int_model import IntModel, require_int_model
from quantgru.int_model.packing import Packing


def export(
    model: IntModel,
    directory: str | Path,
    name: str | None = None,
    *,
    max_steps: int | None = None,
    packing: Packing = "auto",
) -> list[Path]:
    """Writes the C files of `model` into `directory`, which is made; returns their paths.

    name       starts all identifiers and file names; the model's own name if None
    max_steps  the longest sequence of a model that needs whole ones; the longest of the calibration data if None. What
               includes the header can still change it
    packing    of codes of weights; numbers and digest stay. "auto": packed where that saves flash on every target;
               "never": a code has a byte of its own, or two above 8 bits, which is fastest; "always": as few bits as
               hold all codes of a gate

    Files of an earlier export are replaced, each as a whole; other files are left alone. Raises ConfigError for a name
    that is no C identifier, a number of steps that is out of range or of no use, an unknown packing, or a folder
    that cannot be written; ModelError for what is not an IntModel.
    """
    require_int_model(model, "export")
    files = export_files(model, model.name if name is None else name, max_steps=max_steps, packing=packing)
    return _write(Path(directory), files)


def export_arduino(
    model: IntModel,
    directory: str | Path,
    name: str | None = None,
    *,
    max_steps: int | None = None,
    packing: Packing = "auto",
) -> list[Path]:
    """Writes an Arduino library, which is a PlatformIO library, too, into `directory`; returns the paths of its files.

    Its examples are a sketch that runs the model on a sensor, and the test firmware that `run_on_board` talks to.
    Arguments, files that exist and errors are as in `export`; also refused are names that the Arduino core or the test
    firmware has, and the folder of another library.
    """
    require_int_model(model, "export")
    name = model.name if name is None else name
    files = arduino_files(model, name, max_steps=max_steps, packing=packing)
    _refuse_other_library(Path(directory), name)
    return _write(Path(directory), files)


def _refuse_other_library(directory: Path, name: str) -> None:
    """Raises ConfigError for a folder that holds an Arduino library of another name: all sources below src/ are built,
    those of the other one, too."""
    try:
        properties = (directory / "library.properties").read_text(encoding="utf-8", errors="replace")
    except OSError:  # there is none; or it cannot be written either, and that is said then
        return
    found = dict(line.partition("=")[::2] for line in properties.splitlines()).get("name", "").strip()
    if found != name:
        raise ConfigError(
            f"folder {directory}: holds the Arduino library {found!r}, and {name!r} is to be written; choose "
            "another folder, or remove this one"
        )


def _write(directory: Path, files: dict[str, str]) -> list[Path]:
    try:
        if directory.exists():
            for path, text in files.items():
                (directory / path).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(directory / path, text.encode())
        else:
            _write_new(directory, files)
    except OSError as error:
        reason = "is no folder" if directory.exists() and not directory.is_dir() else error.strerror
        raise ConfigError(f"folder {directory}: cannot be written ({reason}); choose another") from None
    return [directory / path for path in files]


def _write_new(directory: Path, files: dict[str, str]) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        beside.chmod(0o777 & ~current_umask())
        for path, text in files.items():
            (beside / path).parent.mkdir(parents=True, exist_ok=True)
            (beside / path).write_text(text, encoding="utf-8", newline="\n")
        os.replace(beside, directory)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
