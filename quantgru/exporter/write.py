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


def export(
    model: IntModel, directory: str | Path, name: str | None = None, *, max_steps: int | None = None
) -> list[Path]:
    """Writes the C files of `model` into `directory`, which is made; returns their paths.

    name       starts all identifiers and file names; the model's own name if None
    max_steps  the longest sequence of a model that needs whole ones; the longest of the calibration data if None. What
               includes the header can still change it

    Files of an earlier export are replaced, each as a whole; other files are left alone. Raises ConfigError for a name
    that is no C identifier, a number of steps that is out of range or of no use, or a folder that cannot be written;
    ModelError for what is not an IntModel.
    """
    require_int_model(model, "export")
    return _write(Path(directory), export_files(model, model.name if name is None else name, max_steps=max_steps))


def export_arduino(
    model: IntModel, directory: str | Path, name: str | None = None, *, max_steps: int | None = None
) -> list[Path]:
    """Writes an Arduino library, which is a PlatformIO library, too, into `directory`; returns the paths of its files.

    Its examples are a sketch that runs the model on a sensor, and the test firmware that `run_on_board` talks to.
    Arguments, files that exist and errors are as in `export`; also refused are names that the Arduino core or the test
    firmware has.
    """
    require_int_model(model, "export")
    return _write(Path(directory), arduino_files(model, model.name if name is None else name, max_steps=max_steps))


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
