"""Send statements to PostgreSQL through libpq itself.

A cursor takes twice the time for a statement, and lets go of the interpreter several times over,
each time for other threads to take hold.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import psycopg
from django.db import DataError, connection
from psycopg import generators
from psycopg.pq import Escaping, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

_FINE = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)


# In settings of our own, which end with the transaction: a look at the limits first would be a
# round trip. Not DEFAULT later, which is not what a project has SET when it connected.
_KEEP = (
    "SELECT set_config('sagas.statements', current_setting('statement_timeout'), true),"
    " set_config('sagas.pauses', current_setting('idle_in_transaction_session_timeout'), true);"
)
_LIMITS_AS_USUAL = (
    "SELECT set_config('statement_timeout', current_setting('sagas.statements'), true),"
    " set_config('idle_in_transaction_session_timeout', current_setting('sagas.pauses'), true)"
)
# For the server that has no limit of its own.
# Not from pg_settings, a view that puts all settings together: that takes a millisecond.
LIMIT_PAUSES = """
SELECT set_config('idle_in_transaction_session_timeout', '60s', true)
WHERE current_setting('idle_in_transaction_session_timeout') = '0'
"""
"""Keeps a hook that hangs from holding the saga's row for ever: nobody could claim it."""


def limit_statements(seconds: float, *, keep_usual: bool = False) -> None:
    """Limit the seconds of each statement, and of each pause between two, in this transaction.

    Args:
        seconds: the limit.
        keep_usual: keep the limits so far, for `usual_limits()`.
    """
    limit = max(1, round(timedelta(seconds=seconds).total_seconds() * 1000))
    send(
        (_KEEP if keep_usual else "") + f"SET LOCAL statement_timeout = {limit};"
        f"SET LOCAL idle_in_transaction_session_timeout = {limit}"
    )


def usual_limits() -> list[tuple[str, list[Any]]]:
    """Build the statements that take `limit_statements(…, keep_usual=True)` back.

    They are for the same transaction, and for an app's hook.
    """
    return [(_LIMITS_AS_USUAL, []), (LIMIT_PAUSES, [])] if connection.vendor == "postgresql" else []


def is_aborted() -> bool:
    """Tell whether an error has spoilt the transaction: its commit would be a rollback."""
    return _link().pgconn.transaction_status == TransactionStatus.INERROR


def send(text: str) -> list[list[tuple[Any, ...]]]:
    """Send one or several statements in a single message, within `atomic()`.

    Returns:
        The rows of each statement; each value is text, or None.
    """
    connection.validate_no_broken_transaction()
    link, skipped = _link(), 0
    if link.pgconn.transaction_status == TransactionStatus.IDLE:
        # As psycopg does before the first statement; here libpq is called past psycopg.
        text = f"{_begin(link)};{text}"
        skipped = 1
    with connection.wrap_database_errors:
        link.pgconn.send_query(text.encode())
        # Not `exec_()`: where the server ends the session, that has lost the reason.
        for result in (results := link.wait(generators.execute(link.pgconn))):
            if result.status not in _FINE:
                raise psycopg.errors.error_from_result(result)
    return [_rows(result) for result in results[skipped:]]


def bound(text: str, params: Sequence[Any]) -> str:
    """Put parameters into a statement: texts, numbers or None."""
    # Not sent apart from the text: libpq takes parameters for a single statement only.
    escape = Escaping(_link().pgconn).escape_literal
    return text % tuple(
        _quoted(each, escape) if isinstance(each, str) else _number(each) for each in params
    )


def _link() -> "psycopg.Connection[Any]":
    """Return Django's psycopg connection in this thread."""
    connection.ensure_connection()
    found: psycopg.Connection[Any] = connection.connection
    return found


def _begin(link: "psycopg.Connection[Any]") -> str:
    parts = ["BEGIN"]
    if link.isolation_level is not None:
        parts.append(f"ISOLATION LEVEL {link.isolation_level.name.replace('_', ' ')}")
    if link.read_only is not None:
        parts.append("READ ONLY" if link.read_only else "READ WRITE")
    if link.deferrable is not None:
        parts.append("DEFERRABLE" if link.deferrable else "NOT DEFERRABLE")
    return " ".join(parts)


def _rows(result: PGresult) -> list[tuple[Any, ...]]:
    columns = range(result.nfields)
    return [tuple(_text(result, n, column) for column in columns) for n in range(result.ntuples)]


def _text(result: PGresult, row: int, column: int) -> str | None:
    value = result.get_value(row, column)
    return None if value is None else value.decode()


def _quoted(text: str, escape: Callable[[bytes], bytes]) -> str:
    # At a NUL libpq would take the text for ended, and store the beginning.
    if "\0" in text:
        raise DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    return escape(text.encode()).decode()


def _number(value: float | None) -> str:
    return "NULL" if value is None else str(value)
