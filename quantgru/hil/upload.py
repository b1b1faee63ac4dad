"""A model that is sent over the line, to test firmware that has none of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from quantgru.hil.messages import BoardDescription
from quantgru.hil.requests import Write
from quantgru.int_model import IntModel
from quantgru.int_model.contract import SPEC_MAJOR
from quantgru.int_model.versions import stated_minor

OTHER_DIGEST: Final = 1
FRAME_TOO_SMALL: Final = 2


@dataclass(frozen=True, eq=False)
class Upload:
    """A model as firmware/BLOB.md has it, and the most RAM that it needs besides."""

    model: IntModel
    blob: bytes
    memory_bytes: int

    def refusal(self, board: BoardDescription) -> str | None:
        """Why the model cannot be on the board; None if it can. Known before anything is sent."""
        if board.spec_minor < stated_minor(self.model):
            needed, found = stated_minor(self.model), f"{board.spec_major}.{board.spec_minor}"
            return f"the model needs numeric contract {SPEC_MAJOR}.{needed}, and the board computes {found}"
        values_bytes = 2 * (self.model.n_inputs + self.model.n_outputs)
        needed = sum(-(-n_bytes // 8) * 8 for n_bytes in (len(self.blob), self.memory_bytes, values_bytes))
        if needed > board.model_room:
            return f"the model needs {needed:,} bytes of RAM, and the board has room for {board.model_room:,}"
        values = max(self.model.n_inputs, self.model.n_outputs)
        if values > board.most_values:
            return f"a step of {values:,} values does not fit the board's frames, which hold {board.most_values:,}"
        return None

    def requests(self, board: BoardDescription) -> Iterator[Write]:
        """The blob in parts."""
        for offset in range(0, len(self.blob), board.write_bytes):
            yield Write(offset, self.blob[offset : offset + board.write_bytes])
