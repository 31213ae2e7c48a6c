"""SQL that the journal writes itself, where the ORM would take a statement for each row."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models import DateTimeField, ExpressionWrapper
from django.db.models.expressions import Combinable
from django.db.models.functions import Now
from django.utils import timezone

from sagas.journal import libpq

Statement = tuple[str, Sequence[Any]]
Rows = list[tuple[Any, ...]]


@cache
def is_postgresql() -> bool:
    return connection.vendor == "postgresql"


def now() -> "Now | datetime":
    """Now, for the ORM, by the database's clock where it is a server. SQLite's own NOW is in UTC,
    whatever the zone is in which moments are kept: there it is this machine's."""
    return Now() if is_postgresql() else timezone.now()


def moment_after(delta: timedelta) -> "Combinable | datetime":
    """A moment ahead, for the ORM, by the same clock.

    Raises:
        OverflowError: the calendar ends before it.
    """
    moment = timezone.now() + delta
    return ExpressionWrapper(Now() + delta, DateTimeField()) if is_postgresql() else moment


def moment(*, seconds_ahead: float = 0.0) -> Statement:
    """An expression for now, or a moment ahead, by the database's clock where it is a server: all
    workers measure their leases by it. (With `clock_timestamp()` PostgreSQL uses no index.)"""
    if is_postgresql():
        return "statement_timestamp() + make_interval(secs => %s)", [seconds_ahead]
    return "%s", [text_of(datetime.now(UTC) + timedelta(seconds=seconds_ahead))]


def text_of(at: datetime) -> str:
    """The moment as this database takes it. A naive one is of Django's time zone."""
    at = timezone.make_aware(at) if timezone.is_naive(at) else at
    if is_postgresql():
        return at.isoformat()
    kept = at if settings.USE_TZ else timezone.make_naive(at)
    return str(connection.ops.adapt_datetimefield_value(kept))


def moment_of(value: str | datetime) -> datetime:
    """The moment, with its zone, of what the database has returned: SQLite keeps a text without."""
    at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    kept_in = connection.timezone if settings.USE_TZ else timezone.get_default_timezone()
    return at if at.tzinfo else timezone.make_aware(at, kept_in)


def id_text(key: UUID) -> str:
    """The id as this database takes it."""
    return str(key) if is_postgresql() else key.hex


def uuid_of(value: Any) -> UUID:
    """The id that this database has returned."""
    return value if isinstance(value, UUID) else UUID(value)


def among(ids: Collection[UUID]) -> Statement:
    """A condition for `id`; on PostgreSQL with one parameter, however many there are."""
    texts = [id_text(key) for key in ids]
    if is_postgresql():
        return "id = ANY(%s::uuid[])", [f"{{{','.join(texts)}}}"]
    return f"id IN ({listed(texts)})", texts


def rows_from(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> Statement:
    """Build a query that gives these rows.

    Args:
        columns: the names of the query's columns, each with its type in PostgreSQL.
        rows: a JSON value for each column, and perhaps for others, which are left out.
    """
    values = [[row[column] for column in columns] for row in rows]
    if len(values) == 1:
        return f"VALUES ({listed(values[0])})", values[0]
    names = ", ".join(columns)
    if is_postgresql():
        # One parameter, however many rows there are.
        types = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        text = json.dumps([dict(zip(columns, row, strict=True)) for row in values])
        return f"SELECT {names} FROM json_to_recordset(%s) AS given ({types})", [text]  # noqa: S608
    extracts = ", ".join(f"json_extract(value, '$[{n}]')" for n in range(len(columns)))
    # `WHERE true`: or SQLite takes ON CONFLICT for a join's ON.
    return f"SELECT {extracts} FROM json_each(%s) WHERE true", [json.dumps(values)]  # noqa: S608


def listed(values: Collection[Any]) -> str:
    """`%s, %s` for IN."""
    return ", ".join(["%s"] * len(values))


def run(sql: str, params: Sequence[Any]) -> Rows:
    """One statement and its rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else []


def run_together(statements: Sequence[Statement]) -> Rows:
    """Several statements, one after the other, and the rows of the last; on PostgreSQL in one round
    trip, with texts for values. To be called in a transaction."""
    if is_postgresql():
        return libpq.send(";".join(libpq.bound(*statement) for statement in statements))
    return [run(*statement) for statement in statements][-1]
