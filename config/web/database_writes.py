"""Find out whether the database takes writes, and remember the last refusal."""

import os
import re
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from django.db import DatabaseError, connection

from saga_runtime.database_errors import sqlstate

REMEMBERED_SECONDS = 30.0
"""How long a refused write makes this process unready. After that, readiness lets a write be tried:
without traffic, room on the disk would never be noticed."""
MIN_FREE_BYTES = 1_048_576

_REFUSED_STATES = ("25006", "53100", "58030")  # read-only transaction, disk full, I/O error
_REFUSED_TEXTS = re.compile(
    r"readonly database|disk is full|disk I/O error|unable to open database"
)


class _Refused(NamedTuple):
    until: float
    reason: str


_last_refused: _Refused | None = None


def is_refused_write(error: BaseException) -> bool:
    """Tell whether the database answers, but takes no writes at present."""
    return sqlstate(error) in _REFUSED_STATES or bool(
        isinstance(error, DatabaseError) and _REFUSED_TEXTS.search(str(error))
    )


def note_refused(reason: str, *, remembered_seconds: float = REMEMBERED_SECONDS) -> None:
    """Remember that a write was just refused.

    Args:
        reason: why, in one line.
        remembered_seconds: how long the refusal makes this process unready.
    """
    global _last_refused  # noqa: PLW0603 - of the process, as its connections are
    _last_refused = _Refused(time.monotonic() + remembered_seconds, reason)


def note_taken() -> None:
    """Remember that a write was just taken."""
    global _last_refused  # noqa: PLW0603
    _last_refused = None


def why_no_writes() -> str:
    """Say why the database takes no writes.

    Returns:
        The reason; empty where writes are taken.

    Raises:
        DatabaseError: the database does not answer.
    """
    on_a_server = connection.vendor == "postgresql"
    reason = _why_not_on_postgresql() if on_a_server else _why_not_on_sqlite()
    if not reason and _last_refused is not None and time.monotonic() < _last_refused.until:
        reason = f"the last write was refused: {_last_refused.reason}"
    return reason


def _why_not_on_postgresql() -> str:
    """Ask whether the server is a replica or read-only, and whether our role may insert."""
    from orders.models import Order  # late: gunicorn imports this before Django is set up
    from outbox.models import OutboxMessage

    models = (Order._meta, OutboxMessage._meta)  # noqa: SLF001 - a documented name
    tables = [model.db_table for model in models]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::bool, "
            "has_table_privilege(%s, 'INSERT') AND has_table_privilege(%s, 'INSERT')",
            tables,
        )
        is_replica, is_read_only, may_insert = cursor.fetchone()
    if is_replica:
        return "the server is a replica"
    if is_read_only:
        return "its transactions are read-only"
    return "" if may_insert else f"this role may not insert into {' and '.join(tables)}"


def _why_not_on_sqlite() -> str:
    """Look whether the file can be written, and its disk has room."""
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA query_only")
        if cursor.fetchone()[0]:
            return "it is read-only"
    file = Path(connection.settings_dict["NAME"])
    if not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):
        return f"{file} and its folder are not both writable"
    if shutil.disk_usage(file.parent).free < MIN_FREE_BYTES:
        return f"the disk of {file} is full"
    return ""
