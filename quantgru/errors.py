"""The four errors that quantgru raises on purpose, and its warning.

A message is one line: what is wrong, where, what was found, what is allowed, and what to do next. The command line
prints it and exits with 2.
"""

import inspect
import warnings


class QuantgruError(Exception):
    """Base of the errors below: catch this one to catch them all."""


class ModelError(QuantgruError):
    """A model that cannot be read, or cannot be done exactly."""


class DataError(QuantgruError):
    """Input sequences, calibration data or arrays that do not fit."""


class ConfigError(QuantgruError):
    """An option, a name or a missing tool."""


class DeviceError(QuantgruError):
    """A board that does not answer, or answers something that it must not."""


class QuantgruWarning(UserWarning):
    """Something that is done as asked, and is probably not what was meant. One sentence."""


def warn(message: str) -> None:
    """A QuantgruWarning at the line that called quantgru, however deep in it the reason was found."""
    level, frame = 1, inspect.currentframe()
    while frame and str(frame.f_globals.get("__name__")).partition(".")[0] == "quantgru":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, QuantgruWarning, stacklevel=level)
