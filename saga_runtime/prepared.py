"""Send statements to PostgreSQL in one round trip, prepared once on each connection.

Parsing and planning are half of what a small statement costs the server, and a prepared statement
is parsed and planned once. A pooler in transaction mode would give the next transaction another
session, which knows none of them: there nothing is prepared.
"""

from collections.abc import Generator, Sequence
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from django.conf import settings
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import generators
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult

from saga_runtime.database_errors import is_stale_plan

Statement = tuple[str, Sequence[Any]]
"""SQL with `%s` for each parameter, and the parameters."""
Rows = list[tuple[Any, ...]]

MOST = 200
"""Prepared statements of a connection, for the server keeps them all; what comes later is not."""

_FINE = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)
_WHO_ANSWERS: Statement = ("SELECT pg_backend_pid()", [])


class _Session:
    """Remember what a connection has prepared.

    Attributes:
        is_direct: whether the connection is to the server itself; None until the server was asked.
        names: of the prepared statements, by text and types of the parameters.
        made: how many names were given; a name is not given twice.
    """

    def __init__(self) -> None:
        self.is_direct = None if getattr(settings, "DATABASE_PREPARED_STATEMENTS", True) else False
        self.names: dict[tuple[bytes, tuple[int, ...]], bytes] = {}
        self.made = 0

    def new_name(self) -> bytes:
        """Return a name for a statement to be prepared; empty where none is."""
        if not self.is_direct or len(self.names) >= MOST:
            return b""
        self.made += 1
        return b"saga_outbox_%d" % self.made


_sessions: WeakKeyDictionary["psycopg.Connection[Any]", _Session] = WeakKeyDictionary()


def exchange(wrapper: BaseDatabaseWrapper, statements: Sequence[Statement]) -> list[Rows]:
    """Run statements in turn, in the caller's transaction and in one round trip.

    Outside of a transaction the statements are one of their own.

    Args:
        wrapper: Django's connection, by psycopg 3 to PostgreSQL.
        statements: each sees what those before it have written.

    Returns:
        The rows of each statement; none for a statement that returns no rows.

    Raises:
        django.db.Error: a statement has failed, and those behind it were not run.
    """
    wrapper.ensure_connection()
    wrapper.validate_no_broken_transaction()
    link: psycopg.Connection[Any] = wrapper.connection
    session = _sessions.setdefault(link, _Session())
    is_begun = link.pgconn.transaction_status != TransactionStatus.IDLE
    first: list[Statement] = [] if is_begun or link.autocommit else [(_begin(link), [])]
    last = [_WHO_ANSWERS] if session.is_direct is None else []
    with wrapper.wrap_database_errors:
        try:
            found = _exchange(link, session, [*first, *statements, *last])
        except psycopg.Error as error:
            if not is_stale_plan(error):
                raise
            # Somebody has changed a table, or let go of all that is prepared.
            session.names.clear()
            if is_begun:
                raise
            link.rollback()
            found = _exchange(link, session, [*first, *statements, *last])
    if last:
        # A pooler tells each client a number of its own.
        [[(answering,)]] = found[-1:]
        session.is_direct = answering == link.info.backend_pid
    return found[len(first) : len(found) - len(last)]


def prepares(wrapper: BaseDatabaseWrapper) -> bool:
    """Tell whether statements may be prepared on a connection; see `exchange()`."""
    wrapper.ensure_connection()
    session = _sessions.setdefault(wrapper.connection, _Session())
    if session.is_direct is None:
        exchange(wrapper, [])
    return bool(session.is_direct)


def _exchange(
    link: "psycopg.Connection[Any]", session: _Session, statements: Sequence[Statement]
) -> list[Rows]:
    """Send the statements, those that are new to the session with a message to prepare them.

    Raises:
        psycopg.Error: the first error.
    """
    pgconn, transform = link.pgconn, Transformer(link)
    prepared: list[tuple[tuple[bytes, tuple[int, ...]], bytes] | None] = []
    dumped = [_dump(link, statement) for statement in statements]
    pgconn.enter_pipeline_mode()
    try:
        for text, types, values, formats in dumped:
            key = (text, types)
            if (name := session.names.get(key)) is None and (name := session.new_name()):
                pgconn.send_prepare(name, text, types)
                prepared.append((key, name))
            prepared.append(None)
            if name:
                pgconn.send_query_prepared(name, values, formats)
            else:
                pgconn.send_query_params(text, values, types, formats)
        pgconn.pipeline_sync()
        results = link.wait(_answers(pgconn, len(prepared) + 1))
    finally:
        _leave_pipeline(pgconn)
    found: list[Rows] = []
    for made, result in zip(prepared, results, strict=False):
        if result.status not in _FINE:
            raise psycopg.errors.error_from_result(result, encoding=link.info.encoding)
        if made is not None:
            key, name = made
            session.names[key] = name
            continue
        transform.set_pgresult(result)
        found.append(transform.load_rows(0, result.ntuples, tuple))
    return found


def _answers(pgconn: PGconn, count: int) -> Generator[Any, Any, list[PGresult]]:
    """Wait for so many answers; an error's, and those of what the server left out, among them."""
    yield from generators.send(pgconn)
    results: list[PGresult] = []
    for _ in range(count):
        try:
            results += yield from generators.fetch_many(pgconn)
        except psycopg.OperationalError:
            # A server that ends the session says why, in the place of an answer.
            if all(result.status != ExecStatus.FATAL_ERROR for result in results):
                raise
            break
    return results


def _leave_pipeline(pgconn: PGconn) -> None:
    """Return to the usual mode; a connection that is lost stays as it is."""
    try:
        pgconn.exit_pipeline_mode()
    except psycopg.OperationalError:
        # Interrupted in the middle, with answers to come: nobody could tell whose they are.
        pgconn.finish()


def _dump(
    link: "psycopg.Connection[Any]", statement: Statement
) -> tuple[bytes, tuple[int, ...], Any, Any]:
    """Return text, and types, values and formats of the parameters, as libpq takes them."""
    text, params = statement
    if not params:
        return _numbered(text), (), None, None
    transform = Transformer(link)
    values = transform.dump_sequence(params, [PyFormat.AUTO] * len(params))
    return _numbered(text), transform.types or (), values, transform.formats


@lru_cache(maxsize=1000)
def _numbered(text: str) -> bytes:
    """Write `$1`, `$2`, … for the placeholders of a statement."""
    parts = text.split("%s")
    numbered = "".join(f"${number}{part}" for number, part in enumerate(parts[1:], start=1))
    return f"{parts[0]}{numbered}".replace("%%", "%").encode()


def _begin(link: "psycopg.Connection[Any]") -> str:
    """Return the BEGIN that psycopg would send before the first statement."""
    parts = ["BEGIN"]
    if link.isolation_level is not None:
        parts.append(f"ISOLATION LEVEL {link.isolation_level.name.replace('_', ' ')}")
    if link.read_only is not None:
        parts.append("READ ONLY" if link.read_only else "READ WRITE")
    if link.deferrable is not None:
        parts.append("DEFERRABLE" if link.deferrable else "NOT DEFERRABLE")
    return " ".join(parts)
