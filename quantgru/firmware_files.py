"""Where the C sources are: beside the package in a checkout, inside it when installed."""

from __future__ import annotations

from pathlib import Path

from quantgru.errors import ConfigError


def firmware_directory() -> Path:
    """The folder with include/, src/, harness/ and ports/. Raises ConfigError for a broken installation."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "_firmware", package.parent / "firmware"):
        if (candidate / "include" / "quantgru.h").is_file():
            return candidate
    raise ConfigError(f"the C sources are missing from {package}: install quantgru again")
