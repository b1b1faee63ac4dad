"""Who may import whom in quantgru/: read from the sources, imports inside functions and under TYPE_CHECKING included.

The tables below are the rules. Modules are named from quantgru/ on ("hil.frames"); a pattern ends in * to mean the
package and all in it. A third party that no table names is refused.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "quantgru"

# Third party -> the modules that may import it.
THIRD_PARTIES = {
    "numpy": ["*"],
    "numba": ["simulator*"],
    "llvmlite": ["simulator*"],
    "serial": ["hil.transport"],
    "cobs": ["hil.frames"],
    "torch": ["importers.pytorch*", "torch*"],
    "keras": ["importers.keras*"],
    "onnx": ["importers.onnx*"],
    "google": ["importers.tensorflow1*"],
    "safetensors": ["container", "importers.pytorch_file"],
    "jinja2": ["exporter*"],
    "click": ["cli*"],
    "rich": ["cli*", "report*"],
    "matplotlib": ["report*"],
    "junitparser": ["cli*"],
    "optuna": ["width_search*"],
    "pytest": ["pytest_plugin"],
    "scipy": ["width_search*"],
}

FOUNDATION = ["errors", "checks", "fixed", "activations", "container", "npz", "signals", "sequences"]
FOUNDATION += ["structure", "array_types", "firmware_files", "c_names"]
MODELS = ["model", "int_model"]
SIBLINGS = ["importers", "simulator", "exporter", "hil", "report"]  # none knows another
# These put the parts together.
TOP = ["expected_steps", "on_board", "on_boards", "pytest_plugin", "board_fit", "model_check", "explanation"]
TOP += ["error_bounds", "error_sources", "width_search", "torch", "demo", "cli", "__main__"]

# Part of quantgru -> the parts that it must not import.
FORBIDDEN = {
    **{part: [*MODELS, *SIBLINGS, "quantizer", *TOP] for part in FOUNDATION},
    **{part: [*SIBLINGS, "quantizer", *TOP] for part in MODELS},
    **{part: [*(other for other in SIBLINGS if other != part), *TOP] for part in SIBLINGS},
    "quantizer": ["importers", "exporter", "hil", "report", *TOP],
    "expected_steps": ["importers", "exporter", "report", *(part for part in TOP if part != "expected_steps")],
    "on_board": ["on_boards", "pytest_plugin", "board_fit", "model_check", "explanation", "demo", "cli"],
    "on_boards": ["pytest_plugin", "board_fit", "model_check", "explanation", "demo", "cli"],
    "pytest_plugin": ["demo", "cli"],
    "board_fit": ["model_check", "explanation", "demo", "cli"],
    "model_check": ["importers", "exporter", "hil", "on_board", "board_fit", "explanation", "demo", "cli"],
    "width_search": ["importers", "exporter", "hil", "on_board", "board_fit", "explanation", "demo", "cli"],
    "explanation": ["importers", "exporter", "hil", "on_board", "board_fit", "model_check", "demo", "cli"],
    "error_bounds": ["importers", "exporter", "hil", "report", *(part for part in TOP if part != "error_bounds")],
    "error_sources": ["importers", "exporter", "hil", *(part for part in TOP if part != "error_sources")],
    "demo": ["cli"],
    "torch": ["exporter", "hil", "report", *(part for part in TOP if part != "torch")],
    "cli": [],
    "__main__": [],
}

# `import quantgru` and the names that it collects are for users; inside, a name is imported from its home.
MAY_USE_PUBLIC_NAMES = TOP


class Import(NamedTuple):
    line: int
    target: str  # absolute: "numba.core", "quantgru.hil.frames"


def imports(source: str, module: str, is_package: bool = False) -> Iterator[Import]:
    """What a module imports, wherever it does; `from a import b` gives a.b."""
    home = ["quantgru", *(module.split(".") if module else [])]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (Import(node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=origin, names=names, level=level):
                base = home[: len(home) - level + is_package] if level else []
                base = [*base, *([origin] if origin else [])]
                yield from (Import(node.lineno, ".".join([*base, alias.name])) for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(target)), *_],
            ):
                yield Import(node.lineno, target)


def offences(source: str, module: str, is_package: bool = False) -> list[str]:
    """One line for each import that breaks a rule."""
    found = []
    for line, target in imports(source, module, is_package):
        reason = _foreign(module, target) if target.split(".")[0] != "quantgru" else _inside(module, target)
        if reason:
            found.append(f"quantgru/{module.replace('.', '/') or '__init__'}.py:{line}: imports {target}: {reason}")
    return found


def _foreign(module: str, target: str) -> str | None:
    top = target.split(".")[0]
    if top in sys.stdlib_module_names:
        return None
    if top not in THIRD_PARTIES:
        return f"{top} is not in the table of third parties"
    allowed = THIRD_PARTIES[top]
    return None if any(fnmatchcase(module, pattern) for pattern in allowed) else f"allowed in {', '.join(allowed)} only"


def _inside(module: str, target: str) -> str | None:
    part = module.split(".")[0]
    if not part:
        return None  # quantgru/__init__.py collects the public names
    imported = target.split(".")[1] if "." in target else ""
    if imported in FORBIDDEN.get(part, []):
        return f"{part} must not know {imported}"
    is_part = (PACKAGE / imported).is_dir() or (PACKAGE / f"{imported}.py").is_file()
    if imported.startswith("__") or (imported and is_part) or part in MAY_USE_PUBLIC_NAMES:
        return None
    return "a public name; import it from the module that defines it"


MODULES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


@pytest.mark.parametrize("path", MODULES, ids=[module_name(path) or "quantgru" for path in MODULES])
def test_module_keeps_the_rules(path: Path) -> None:
    found = offences(path.read_text(), module_name(path), path.name == "__init__.py")
    assert not found, "\n" + "\n".join(found)


def test_every_part_is_in_the_tables() -> None:
    parts = {module_name(path).split(".")[0] for path in MODULES} - {""}
    assert parts <= FORBIDDEN.keys(), "say in FORBIDDEN what a new part may not import"


@pytest.mark.parametrize(
    ("module", "source", "reason"),
    [
        ("simulator.run", "from quantgru.exporter import export", "simulator must not know exporter"),
        ("exporter", "def f():\n    import quantgru.hil.frames", "exporter must not know hil"),
        ("report.text", "if TYPE_CHECKING:\n    from quantgru import importers", "report must not know importers"),
        ("hil.session", "from ..simulator.run import run", "hil must not know simulator"),
        ("hil", "from ..report import text", "hil must not know report"),
        ("importers", "import_module('quantgru.simulator')", "importers must not know simulator"),
        ("model.run", "from quantgru.quantizer import quantize", "model must not know quantizer"),
        ("int_model.file", "import quantgru.cli.main", "int_model must not know cli"),
        ("fixed", "from quantgru.model import Gru", "fixed must not know model"),
        ("quantizer", "from quantgru import simulate", "a public name"),
        ("exporter", "import quantgru as qg", "a public name"),
        ("quantizer", "import numba", "allowed in simulator* only"),
        ("hil.session", "import serial.tools.list_ports", "allowed in hil.transport only"),
        ("importers.load", "import torch.nn as nn", "allowed in importers.pytorch*, torch* only"),
        ("importers.pytorch", "import keras", "allowed in importers.keras* only"),
        ("model.file", "import safetensors.numpy", "allowed in container, importers.pytorch_file only"),
        ("exporter.c", "from rich import print", "allowed in cli*, report* only"),
        ("fixed", "import pandas", "not in the table of third parties"),
    ],
)
def test_an_offence_is_found(module: str, source: str, reason: str) -> None:
    is_package = "." not in module
    (found,) = offences("x = 1\n" + source, module, is_package)
    assert reason in found
    assert f":{1 + len(source.splitlines())}:" in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("simulator.run", "import numba\nfrom . import kernels\nfrom .kernels import step\nfrom quantgru import fixed"),
        ("cli.main", "import click, rich.table\nimport quantgru as qg\nfrom quantgru import hil, simulate"),
        ("importers.keras_file", "import keras, zipfile"),
        ("on_board", "from quantgru.exporter import export\nfrom quantgru.hil import session"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert offences(source, module) == []
