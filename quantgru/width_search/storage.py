"""Where a study of Optuna is kept: memory, a journal or a database; and what is said of it, without passwords."""

from __future__ import annotations

import re
import time
from typing import Any, Final
from urllib.parse import unquote

_LOCK_TIMEOUT_S: Final = 60  # until another process has written to the same SQLite file
_ATTEMPTS: Final = 20
_PAUSE_S: Final = 0.25
# What drivers say where two processes make the tables of a new database at the same time.
_MADE_MEANWHILE: Final = re.compile("already exists|unique|duplicate", re.IGNORECASE)
_SECRETS: Final = (
    re.compile(r"(?P<before>://[^:/@]*:)(?P<secret>.*)(?P<after>@)"),  # to the last @: passwords may have one
    re.compile(r"(?P<before>[?&]\w*(?:password|passwd|pwd)=)(?P<secret>[^&]*)(?P<after>)", re.IGNORECASE),
)
_MASK: Final = "***"


def open_storage(storage: str | None) -> Any:
    """As Optuna takes it: from the path of a journal, or the URL of a database; None: in memory.

    Raises what the storage does, and ValueError for a file that is no journal.
    """
    from optuna.storages import JournalStorage, RDBStorage

    if storage is None:
        return None
    if "://" not in storage:
        from quantgru.width_search.journal import Journal

        return JournalStorage(Journal(storage))
    options = {"connect_args": {"timeout": _LOCK_TIMEOUT_S}} if storage.startswith("sqlite") else None
    for _ in range(_ATTEMPTS - 1):
        try:
            return RDBStorage(storage, engine_kwargs=options)
        except Exception as error:  # of any database's driver
            if not _MADE_MEANWHILE.search(str(error)):
                raise
        time.sleep(_PAUSE_S)
    return RDBStorage(storage, engine_kwargs=options)


def shown(storage: str | None) -> str:
    """
    >>> shown("mysql://me:open@sesame@host/studies?ssl_password=secret&timeout=9")
    'mysql://me:***@host/studies?ssl_password=***&timeout=9'
    """
    text = "memory" if storage is None else storage or "''"
    for pattern in _SECRETS:
        text = pattern.sub(rf"\g<before>{_MASK}\g<after>", text)
    return text


def reason(error: BaseException, storage: str | None) -> str:
    """What an error of the storage says, in one line: that of its driver, if it has one.

    >>> reason(OSError("no host sesame@host"), "mysql://me:open@sesame@host/studies")
    'no host ***@host'
    >>> reason(OSError("no password open@sesame"), "mysql://me:open%40sesame@host/studies")
    'no password ***'
    """
    while error.__cause__ is not None:
        error = error.__cause__
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip()
    line = (text.splitlines() or [type(error).__name__])[0]
    secrets = [found["secret"] for pattern in _SECRETS for found in pattern.finditer(storage or "")]
    # What a driver may quote: one without its escapes, or what is on one side of an @ that is not escaped.
    parts = {part for secret in secrets for part in (secret, unquote(secret), *secret.split("@")) if part}
    for part in sorted(parts, key=len, reverse=True):
        line = re.sub(rf"(?<!\w){re.escape(part)}(?!\w)", _MASK, line)
    return line
