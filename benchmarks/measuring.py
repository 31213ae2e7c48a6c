"""Measure the rate of a case, and its cost: commits, statements and CPU per saga."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString, Protocol, Self
from unittest.mock import patch
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

DISCONNECTED_WITHIN = 15.0


class Case(Protocol):
    """Describe one line of the table.

    `close` leaves no connection open: only then is the server's count of commits whole, because
    each backend adds its own count now and then, and at its end.
    """

    title: str
    database: str

    def prepare(self, count: int) -> None:
        """Put that many sagas into the tables, before the clock starts."""

    def run(self) -> None:
        """Run all sagas to their ends."""

    def close(self) -> None:
        """Close all connections."""


@dataclass(frozen=True, slots=True)
class Result:
    """Hold the result of one round; all but the rate are per saga.

    Attributes:
        rate: sagas a second.
        commits: by the server's count.
        statements: without BEGIN and COMMIT.
        cpu_ms: milliseconds of this process.
    """

    rate: float
    commits: float
    statements: float
    cpu_ms: float


class Observer:
    """Watch by a connection whose statements are not counted."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, cursor_factory=_Looking)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    @property
    def database(self) -> str:
        """Return the name of the connection's database."""
        return self._connection.info.dbname

    @property
    def backend(self) -> int:
        """Return the process id of the connection's server process."""
        return self._connection.info.backend_pid

    def ask(self, query: LiteralString, *parameters: object) -> Any:
        """Return the one value of a query."""
        [(value,)] = self.rows(query, *parameters)
        return value

    def rows(self, query: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        found = self._connection.execute(query, parameters).fetchall()
        self._connection.rollback()  # which is no commit
        return found

    def commits(self, database: str) -> int:
        """Return how many commits a database has seen, once all other clients have left."""
        self.await_disconnected(database)
        found = self.ask("SELECT xact_commit FROM pg_stat_database WHERE datname = %s", database)
        return int(found)

    def await_disconnected(self, database: str) -> None:
        """Wait until all other clients of a database have left."""
        deadline = time.monotonic() + DISCONNECTED_WITHIN
        while self.ask(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'",
            database,
        ):
            if time.monotonic() > deadline:
                raise SystemExit(f"somebody is still connected to {database}")
            time.sleep(0.02)


def measure(case: Case, count: int, observer: Observer) -> Result:
    """Run a case once with that many sagas."""
    commits = observer.commits(case.database)
    case.prepare(count)
    with statements() as counted:
        began, cpu_began = time.perf_counter(), time.process_time()
        case.run()
        took, cpu = time.perf_counter() - began, time.process_time() - cpu_began
        executed = counted()
    case.close()
    commits = observer.commits(case.database) - commits
    return Result(count / took, commits / count, executed / count, cpu * 1000 / count)


@contextmanager
def own_database(url: str, *, suffix: str = "") -> Iterator[str]:
    """Make an empty database beside the one in the URL, for the block.

    Args:
        url: PostgreSQL's URL.
        suffix: goes to the end of the new name.

    Yields:
        The new database's URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("postgres", "postgresql", "psql", "pgsql"):
        raise SystemExit("this needs PostgreSQL: DATABASE_URL=postgres://user:password@host/name")
    parts = parts._replace(scheme="postgresql")
    name = f"{parts.path.strip('/')}_bench{suffix}"
    with psycopg.connect(parts.geturl(), autocommit=True) as server:
        drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        server.execute(drop)
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield parts._replace(path=f"/{name}").geturl()
        finally:
            server.execute(drop)


class _Looking(psycopg.Cursor[tuple[Any, ...]]):
    """Mark the observer's statements, which are not counted."""


@contextmanager
def statements() -> Iterator[Callable[[], int]]:
    """Count the statements of this process, for the block.

    Counted is what any psycopg cursor executes, Django's and SQLAlchemy's too, and what the sagas
    send without a cursor. BEGIN, COMMIT and ROLLBACK are left out; psycopg sends them without a
    cursor.

    Yields:
        A function that returns the count so far.
    """
    from saga_runtime import prepared

    total = 0
    send = prepared.exchange
    execute, executemany = psycopg.Cursor.execute, psycopg.Cursor.executemany

    def counted(cursor: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal total
        if not isinstance(cursor, _Looking):
            total += _how_many(args[0] if args else kwargs["query"])
        return execute(cursor, *args, **kwargs)

    def counted_many(cursor: Any, query: Any, params_seq: Any, **kwargs: Any) -> Any:
        nonlocal total
        params_seq = list(params_seq)
        total += len(params_seq)
        return executemany(cursor, query, params_seq, **kwargs)

    def counted_message(wrapper: Any, statements: Any) -> Any:
        nonlocal total
        total += len(statements)
        return send(wrapper, statements)

    with (
        patch.object(prepared, "exchange", counted_message),
        patch.object(psycopg.Cursor, "execute", counted),
        patch.object(psycopg.Cursor, "executemany", counted_many),
    ):
        yield lambda: total


def _how_many(query: object) -> int:
    """Count the statements in one text."""
    if query in ("BEGIN", "COMMIT"):
        return 0
    text = re.sub(r"--[^\n]*", "", str(query))  # a comment may have semicolons
    return text.strip("; \n").count(";") + 1
