"""Run statements in turn, on PostgreSQL in a single round trip."""

from collections.abc import Sequence
from typing import Any

from django.db import connection
from django.utils import timezone

Statement = tuple[str, Sequence[Any]]
"""SQL with `%s` for each parameter, and the parameters."""
Rows = list[tuple[Any, ...]]


def run_together(*statements: Statement) -> list[Rows]:
    """Run statements in turn, in the caller's transaction.

    Args:
        statements: each sees what those before it have written.

    Returns:
        The rows of each statement; none for a statement that returns no rows.

    Raises:
        django.db.Error: a statement has failed, and those behind it were not run.
    """
    if connection.vendor != "postgresql":
        return [_run(*statement) for statement in statements]
    with connection.cursor() as cursor:
        cursor.execute(
            "; ".join(text for text, _ in statements),
            [value for _, values in statements for value in values],
        )
        found: list[Rows] = []
        for _ in statements:
            found.append(cursor.fetchall() if cursor.description else [])
            cursor.cursor.nextset()
        return found


def this_moment() -> object:
    """Return the present moment, as the database takes it for a parameter of a statement."""
    return connection.ops.adapt_datetimefield_value(timezone.now())


def _run(text: str, values: Sequence[Any]) -> Rows:
    with connection.cursor() as cursor:
        cursor.execute(text, values)
        return cursor.fetchall() if cursor.description else []
