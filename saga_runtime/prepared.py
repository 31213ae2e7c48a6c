"""Send statements to PostgreSQL in one round trip, prepared once on each connection.

Parsing and planning are half of what a small statement costs the server, and a prepared statement
is parsed and planned once. A pooler in transaction mode would give the next transaction another
session, which knows none of them: there nothing is prepared.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from django.db import NotSupportedError
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import generators
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus, PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult

from saga_runtime import project_settings
from saga_runtime.database_errors import NO_SUCH_STATEMENT, is_stale_plan

Statement = tuple[str, Sequence[Any]]
"""SQL with `%s` for each parameter, and the parameters."""
Rows = list[tuple[Any, ...]]

MOST = 200
"""Statements that a connection may prepare, for the server keeps them all; the others are not."""

_FINE = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)
_WHO_ANSWERS: Statement = ("SELECT pg_backend_pid()", [])
_Key = tuple[bytes, tuple[int, ...]]  # a text, and the types of its parameters


class StaleStatement(psycopg.OperationalError):
    """Raised where what the transaction has done before cannot be repeated from here.

    Django makes an OperationalError of it; `database_errors.is_conflict()` knows it by its code.
    """

    sqlstate = NO_SUCH_STATEMENT


class _Session:
    """Remember what a connection has prepared.

    Attributes:
        is_direct: whether the connection is to the server itself; None until the server was asked.
        names: of the prepared statements.
    """

    def __init__(self) -> None:
        self.is_direct = None if project_settings.prepares_statements() else False
        self.names: dict[_Key, bytes] = {}
        self._made = 0

    def new_name(self, *, held: int) -> bytes:
        """Return a name that was never given, for a statement to be prepared; empty for none.

        Args:
            held: how many statements are prepared already.
        """
        if not self.is_direct or held >= MOST:
            return b""
        self._made += 1
        return b"saga_outbox_%d" % self._made


@dataclass(frozen=True, slots=True)
class _Message:
    """Hold a statement as libpq takes it.

    Attributes:
        text: with `$1`, `$2`, …
        types: of the parameters.
        values: of the parameters.
        formats: of the values.
    """

    text: bytes
    types: tuple[int, ...]
    values: Any
    formats: Any


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
        django.db.Error: a statement, or the commit of a transaction of their own, has failed.
    """
    link = _link(wrapper)
    session = _session(link)
    is_begun = link.pgconn.transaction_status != TransactionStatus.IDLE
    first: list[Statement] = [] if is_begun or link.autocommit else [(_begin(link), [])]
    last = [_WHO_ANSWERS] if session.is_direct is None else []
    together = [*first, *statements, *last]
    with wrapper.wrap_database_errors:
        try:
            found = _exchange(link, session, together)
        except psycopg.Error as error:
            if not is_stale_plan(error):
                raise
            # Somebody has changed a table, or let go of all that is prepared.
            session.names.clear()
            if is_begun:
                raise StaleStatement(str(error)) from error
            link.rollback()
            found = _exchange(link, session, together)
        finally:
            wrapper.errors_occurred = wrapper.errors_occurred or link.closed
    if last:
        # A pooler tells each client a number of its own.
        [[(answering,)]] = found[-1:]
        session.is_direct = answering == link.info.backend_pid
    return found[len(first) : len(found) - len(last)]


def _session(link: "psycopg.Connection[Any]") -> _Session:
    """Return what is known of a connection."""
    session = _sessions.get(link)
    if session is None:
        session = _sessions[link] = _Session()
        # psycopg's own preparing lets go of everything after some statements, ours too.
        if link.prepare_threshold is not None:
            session.is_direct = False
    return session


def _link(wrapper: BaseDatabaseWrapper) -> "psycopg.Connection[Any]":
    """Return psycopg's connection, as Django hands it to a cursor."""
    wrapper.validate_thread_sharing()
    wrapper.close_if_health_check_failed()
    wrapper.ensure_connection()
    wrapper.validate_no_broken_transaction()
    link: psycopg.Connection[Any] = wrapper.connection
    if link.pgconn.pipeline_status != PipelineStatus.OFF:
        # Its answers come first, and only the pipeline knows whose they are.
        raise NotSupportedError("close your psycopg pipeline() before this: see its `with` block")
    return link


def _exchange(
    link: "psycopg.Connection[Any]", session: _Session, statements: Sequence[Statement]
) -> list[Rows]:
    """Send statements, and return the rows of each.

    Raises:
        psycopg.Error: the first error.
    """
    messages = [_message(link, *statement) for statement in statements]
    pgconn = link.pgconn
    pgconn.enter_pipeline_mode()
    try:
        prepared, asked = _send(pgconn, session, messages)
        pgconn.pipeline_sync()
        results = link.wait(_answers(pgconn))
    finally:
        _leave_pipeline(pgconn)
    for key, result in zip(asked, results, strict=False):
        if key is not None and result.status in _FINE:
            session.names[key] = prepared[key]
    # Also one more than there were messages: outside of a transaction they commit at the end.
    for result in results:
        if result.status not in _FINE:
            raise psycopg.errors.error_from_result(result, encoding=link.info.encoding)
    transform, found = Transformer(link), []
    for key, result in zip(asked, results, strict=True):
        if key is None:
            transform.set_pgresult(result)
            found.append(transform.load_rows(0, result.ntuples, tuple))
    return found


def _send(
    pgconn: PGconn, session: _Session, messages: Sequence[_Message]
) -> tuple[dict[_Key, bytes], list[_Key | None]]:
    """Send statements, each behind a message that prepares it where the session does not know it.

    Returns:
        The names of what is prepared with them; and what each answer is to: a key for a statement
        that is prepared, None for one that is run.
    """
    keys = [(message.text, message.types) for message in messages]
    new: dict[_Key, bytes] = {}
    sent: list[_Key | None] = []
    for key, message in zip(keys, messages, strict=True):
        name = session.names.get(key) or new.get(key, b"")
        held = len(session.names) + len(new)
        # Nothing may be parsed before a BEGIN: that would be too late for an isolation level.
        if not name and key[0][:5] != b"BEGIN" and (name := session.new_name(held=held)):
            new[key] = name
            pgconn.send_prepare(name, message.text, message.types)
            sent.append(key)
        sent.append(None)
        if name:
            pgconn.send_query_prepared(name, message.values, message.formats)
        else:
            pgconn.send_query_params(message.text, message.values, message.types, message.formats)
    return new, sent


def _answers(pgconn: PGconn) -> Generator[Any, Any, list[PGresult]]:
    """Wait for all answers; an error's, and those of what the server left out, among them.

    Raises:
        psycopg.OperationalError: the connection is lost, and the server has not said why.
    """
    yield from generators.send(pgconn)
    results: list[PGresult] = []
    while True:
        try:
            found = yield from generators.fetch_many(pgconn)
        except psycopg.OperationalError:
            # A server that ends the session says why, in the place of an answer.
            if all(result.status != ExecStatus.FATAL_ERROR for result in results):
                raise
            return results
        if not found:
            raise psycopg.OperationalError("the connection is lost")
        results += found
        if results[-1].status == ExecStatus.PIPELINE_SYNC:
            return results[:-1]


def _leave_pipeline(pgconn: PGconn) -> None:
    """Return to the usual mode; a connection that is lost stays as it is."""
    try:
        pgconn.exit_pipeline_mode()
    except psycopg.OperationalError:
        # Interrupted in the middle, with answers to come: nobody could tell whose they are.
        pgconn.finish()


def _message(link: "psycopg.Connection[Any]", text: str, params: Sequence[Any]) -> _Message:
    """Convert a statement."""
    if not params:
        return _Message(_numbered(text), (), None, None)
    transform = Transformer(link)
    values = transform.dump_sequence(params, [PyFormat.AUTO] * len(params))
    return _Message(_numbered(text), transform.types or (), values, transform.formats)


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
