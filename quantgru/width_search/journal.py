"""A journal of Optuna in a file, which survives a full disk and a process that was killed."""

from __future__ import annotations

import json
import os
from typing import Any, BinaryIO, Final

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

_BEGINS: Final = b'{"op_code":'


class Journal(JournalFileBackend):
    """Optuna's own, except that a removed one does not come back, and half a record is not in the way of the next.

    Raises OSError, and ValueError for a file that is no journal, which stays as it is.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)  # its lock is a link with this target, which is looked for beside the lock
        _check(self._path)
        self._links = JournalFileSymlinkLock(self._path)
        super().__init__(self._path, self._links)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Adds records, each a line."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        self._links.acquire()
        try:
            with open(self._path, "r+b") as file:  # unlike "ab", no new file, which would lack what the old one held
                _drop_unfinished(file)
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        finally:
            self._links.release()


def _check(path: str) -> None:
    if os.path.exists(path):
        with open(path, "rb") as file:
            if file.read(len(_BEGINS)) not in (b"", _BEGINS):
                raise ValueError("it is no journal of Optuna")


def _drop_unfinished(file: BinaryIO) -> None:
    """Ends the file behind its last whole line, and goes there."""
    end = file.seek(0, os.SEEK_END)
    while end:
        file.seek(end - 1)
        if file.read(1) == b"\n":
            break
        end -= 1
    file.truncate(end)
    file.seek(end)
