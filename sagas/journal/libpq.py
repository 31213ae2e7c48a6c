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
LIMITS_AS_USUAL = (
    "SELECT set_config('statement_timeout', current_setting('sagas.statements'), true),"
    " set_config('idle_in_transaction_session_timeout', current_setting('sagas.pauses'), true)"
)
"""Takes the limits of `limit_statements(…, keep_usual=True)` back, in the same transaction."""


def limit_statements(seconds: float, *, keep_usual: bool = False) -> None:
    """Limit the seconds of each statement, and of each pause between two, in this transaction.

    Args:
        seconds: the limit.
        keep_usual: keep the limits so far, for `LIMITS_AS_USUAL`.
    """
    limit = max(1, round(timedelta(seconds=seconds).total_seconds() * 1000))
    send(
        (_KEEP if keep_usual else "") + f"SET LOCAL statement_timeout = {limit};"
        f"SET LOCAL idle_in_transaction_session_timeout = {limit}"
    )


def is_aborted() -> bool:
    """Tell whether an error has spoilt the transaction: its commit would be a rollback."""
    return _link().pgconn.transaction_status == TransactionStatus.INERROR


def send(text: str) -> list[tuple[Any, ...]]:
    """Send one or several statements in a single message, within `atomic()`.

    Returns:
        The rows of the last statement; each value is text, or None.
    """
    connection.validate_no_broken_transaction()
    link = _link()
    if link.pgconn.transaction_status == TransactionStatus.IDLE:
        # As psycopg does before the first statement; here libpq is called past psycopg.
        text = f"{_begin(link)};{text}"
    with connection.wrap_database_errors:
        link.pgconn.send_query(text.encode())
        # Not `exec_()`: where the server ends the session, that has lost the reason.
        for result in (results := link.wait(generators.execute(link.pgconn))):
            if result.status not in _FINE:
                raise psycopg.errors.error_from_result(result)
    result = results[-1]
    columns = range(result.nfields)
    return [tuple(_text(result, n, column) for column in columns) for n in range(result.ntuples)]


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
