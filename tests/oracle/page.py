"""What the oracle reads out of SPEC.md itself: its version, and the table of R6."""

import re
from pathlib import Path

SPEC = Path(__file__).resolve().parents[2] / "firmware" / "SPEC.md"


def spec_version(text: str) -> tuple[int, int]:
    """Returns (major, minor) of the page."""
    major, minor = re.search(r"^Version (\d+)\.(\d+)\.", text, re.MULTILINE).groups()
    return int(major), int(minor)


def spec_table_entries(text: str) -> tuple[int, ...]:
    """Returns the entries of the first code block after R6."""
    block = text.split("**R6 ")[1].split("```")[1]
    return tuple(int(entry) for entry in re.findall(r"\d+", block))


MAJOR, MINOR = spec_version(SPEC.read_text(encoding="utf-8"))
T = spec_table_entries(SPEC.read_text(encoding="utf-8"))
