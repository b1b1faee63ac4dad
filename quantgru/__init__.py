"""Gated recurrent networks in fixed point on microcontrollers.

    import quantgru as qg

    model = qg.load("model.keras")                        # or a live Keras or PyTorch object
    int_model = qg.quantize(model, calibration=x)         # x [sequences, steps, features]
    y = qg.simulate(int_model, x)                         # what the device computes, as real numbers
    qg.export(int_model, "firmware", name="gesture")      # portable C99
    assert qg.run_on_board(int_model, x, port="/dev/ttyACM0").equal

Names are imported when they are first used, so that `import quantgru` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from quantgru.errors import ConfigError, DataError, DeviceError, ModelError, QuantgruError, QuantgruWarning

if TYPE_CHECKING:
    from quantgru.board_fit import BoardFit, inspect_board
    from quantgru.error_bounds import ErrorBound, FoundErrors, error_bound, find_errors
    from quantgru.error_sources import Sensitivity, sensitivity
    from quantgru.explanation import explain
    from quantgru.exporter import export, export_arduino, to_blob
    from quantgru.importers import from_arrays, load
    from quantgru.int_model import IntModel
    from quantgru.model import Bidirectional, Dense, Embedding, FloatModel, Gru, Reverse
    from quantgru.model_check import CheckResult, check
    from quantgru.on_board import BoardResult, run_on_board, run_seeded_on_board
    from quantgru.quantizer import quantize
    from quantgru.simulator import InputLog, Replay, Stream, read_logs, replay, run, simulate
    from quantgru.width_search import SearchResult, search

__version__ = "0.1.0"

_HOMES = {
    "Bidirectional": "model",
    "Dense": "model",
    "Embedding": "model",
    "FloatModel": "model",
    "Gru": "model",
    "InputLog": "simulator",
    "IntModel": "int_model",
    "Replay": "simulator",
    "Reverse": "model",
    "SearchResult": "width_search",
    "Stream": "simulator",
    "BoardFit": "board_fit",
    "BoardResult": "on_board",
    "CheckResult": "model_check",
    "ErrorBound": "error_bounds",
    "FoundErrors": "error_bounds",
    "Sensitivity": "error_sources",
    "check": "model_check",
    "error_bound": "error_bounds",
    "explain": "explanation",
    "find_errors": "error_bounds",
    "sensitivity": "error_sources",
    "inspect_board": "board_fit",
    "export": "exporter",
    "export_arduino": "exporter",
    "from_arrays": "importers",
    "load": "importers",
    "quantize": "quantizer",
    "read_logs": "simulator",
    "replay": "simulator",
    "run": "simulator",
    "run_on_board": "on_board",
    "run_seeded_on_board": "on_board",
    "search": "width_search",
    "simulate": "simulator",
    "to_blob": "exporter",
}

__all__ = [
    "Bidirectional",
    "BoardFit",
    "BoardResult",
    "CheckResult",
    "ConfigError",
    "DataError",
    "Dense",
    "DeviceError",
    "Embedding",
    "ErrorBound",
    "FloatModel",
    "FoundErrors",
    "Gru",
    "InputLog",
    "IntModel",
    "ModelError",
    "QuantgruError",
    "QuantgruWarning",
    "Replay",
    "Reverse",
    "SearchResult",
    "Sensitivity",
    "Stream",
    "check",
    "error_bound",
    "explain",
    "export",
    "export_arduino",
    "find_errors",
    "from_arrays",
    "inspect_board",
    "load",
    "quantize",
    "read_logs",
    "replay",
    "run",
    "run_on_board",
    "run_seeded_on_board",
    "search",
    "sensitivity",
    "simulate",
    "to_blob",
]


def __getattr__(name: str) -> Any:
    if name == "torch":  # not in __all__, for it needs PyTorch
        return import_module("quantgru.torch")
    if name not in _HOMES:
        raise AttributeError(f"module 'quantgru' has no attribute {name!r}")
    return getattr(import_module(f"quantgru.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
