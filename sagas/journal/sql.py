"""Run SQL of our own, where the ORM would take a statement for each row; write moments and ids."""

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

from saga_runtime import round_trips

Statement = round_trips.Statement
"""SQL, whole or a part, with `%s` for each parameter; and the parameters."""
Rows = round_trips.Rows


@cache
def is_postgresql() -> bool:
    """Tell whether the database is PostgreSQL, and not SQLite."""
    return connection.vendor == "postgresql"


def now() -> "Now | datetime":
    """Return the present moment for the ORM, by the server's clock; on SQLite by this machine's.

    SQLite's own NOW is in UTC, even where moments are kept in a different zone.
    """
    return Now() if is_postgresql() else timezone.now()


def moment_after(delta: timedelta) -> "Combinable | datetime":
    """Return a moment ahead for the ORM, by the clock of `now()`.

    Raises:
        OverflowError: the calendar ends before the moment.
    """
    moment = timezone.now() + delta
    return ExpressionWrapper(Now() + delta, DateTimeField()) if is_postgresql() else moment


def moment(*, seconds_ahead: float = 0.0) -> Statement:
    """Build an SQL expression for the present, or a moment ahead, by the clock of `now()`.

    On a server all workers measure their leases by the same clock.
    """
    # Not `clock_timestamp()`: with that, PostgreSQL uses no index.
    if is_postgresql():
        return "statement_timestamp() + make_interval(secs => %s)", [seconds_ahead]
    return "%s", [text_of(datetime.now(UTC) + timedelta(seconds=seconds_ahead))]


def text_of(at: datetime) -> str:
    """Return a moment as text for this database; a naive moment is in Django's time zone."""
    at = timezone.make_aware(at) if timezone.is_naive(at) else at
    if is_postgresql():
        return at.isoformat()
    kept = at if settings.USE_TZ else timezone.make_naive(at)
    return str(connection.ops.adapt_datetimefield_value(kept))


def moment_of(value: str | datetime) -> datetime:
    """Return a moment, with a zone, from a value of the database: SQLite keeps bare text."""
    at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    kept_in = connection.timezone if settings.USE_TZ else timezone.get_default_timezone()
    return at if at.tzinfo else timezone.make_aware(at, kept_in)


def id_text(key: UUID) -> str:
    """Return an id as text for this database."""
    return str(key) if is_postgresql() else key.hex


def uuid_of(value: Any) -> UUID:
    """Return an id from a value of this database."""
    return value if isinstance(value, UUID) else UUID(value)


def among(ids: Collection[UUID]) -> Statement:
    """Build the condition for `id` among the given ids; on PostgreSQL a single parameter."""
    texts = [id_text(key) for key in ids]
    if is_postgresql():
        return "id = ANY(%s::uuid[])", [f"{{{','.join(texts)}}}"]
    return f"id IN ({listed(texts)})", texts


def rows_from(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> Statement:
    """Build a query of the given rows.

    Args:
        columns: the names of the query's columns, each with a type of PostgreSQL.
        rows: a JSON value for each column; values of further columns are left out.
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
    """Return the placeholders of values, as `%s, %s` for IN."""
    return ", ".join(["%s"] * len(values))


def run(sql: str, params: Sequence[Any]) -> Rows:
    """Run a statement, and return the rows."""
    return round_trips.run(sql, params)


def run_planned(sql: str, params: Sequence[Any]) -> Rows:
    """Run a statement that is planned each time; see `round_trips.run_planned()`."""
    return round_trips.run_planned(sql, params)


def run_together(statements: Sequence[Statement]) -> list[Rows]:
    """Run statements in turn, in the caller's transaction; see `round_trips.run_together()`."""
    return round_trips.run_together(*statements)
