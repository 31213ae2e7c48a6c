"""Run statements in turn, on PostgreSQL in a single round trip."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from saga_runtime import prepared
from saga_runtime.hang_watch import Watch, current_watch
from saga_runtime.prepared import Rows, Statement

__all__ = ["Rows", "Statement", "is_aborted", "run", "run_planned", "run_together", "this_moment"]

_IN_ERROR = 3  # libpq's PQTRANS_INERROR


def run_together(*statements: Statement, using: str = DEFAULT_DB_ALIAS) -> list[Rows]:
    """Run statements in turn, in the caller's transaction.

    On PostgreSQL they go past Django's cursors, which take twice the time, and are prepared unless
    a pooler is between. Where somebody listens to the cursors (`execute_wrapper()`, Django's log of
    queries) the cursors are used.

    Args:
        statements: each sees what those before it have written.
        using: alias of the database.

    Returns:
        The rows of each statement; none for a statement that returns no rows.

    Raises:
        django.db.Error: a statement has failed, and those behind it were not run.
    """
    wrapper = connections[using]
    if wrapper.vendor != "postgresql":
        return [_run(wrapper, *statement) for statement in statements]
    if not _is_listened_to(wrapper):
        watch = current_watch.get()
        with nullcontext() if watch is None else watch.statement():
            return prepared.exchange(wrapper, statements)
    with wrapper.cursor() as cursor:
        cursor.execute(
            "; ".join(text for text, _ in statements),
            [value for _, values in statements for value in values],
        )
        found: list[Rows] = []
        for _ in statements:
            found.append(cursor.fetchall() if cursor.description else [])
            cursor.cursor.nextset()
        return found


def run_planned(text: str, values: Sequence[Any]) -> Rows:
    """Run one statement that PostgreSQL plans each time, by the tables as they are.

    For what would be slow by a plan made while its tables were empty, and for texts that hardly
    come again.
    """
    return _run(connections[DEFAULT_DB_ALIAS], text, values)


def _is_listened_to(wrapper: BaseDatabaseWrapper) -> bool:
    """Tell whether statements have to go through Django's cursors."""
    wrapper.ensure_connection()  # first: some begin to listen when a connection is made
    return wrapper.queries_logged or not Watch.is_alone_on(wrapper)


def run(text: str, values: Sequence[Any], *, using: str = DEFAULT_DB_ALIAS) -> Rows:
    """Run one statement; see `run_together()`."""
    [found] = run_together((text, values), using=using)
    return found


def is_aborted() -> bool:
    """Tell whether an error has spoilt the transaction: PostgreSQL's commit would roll back."""
    wrapper = connections[DEFAULT_DB_ALIAS]
    if wrapper.vendor != "postgresql" or wrapper.connection is None:
        return False
    return bool(wrapper.connection.info.transaction_status == _IN_ERROR)


def this_moment() -> object:
    """Return the present moment, as the database takes it for a parameter of a statement."""
    return connections[DEFAULT_DB_ALIAS].ops.adapt_datetimefield_value(timezone.now())


def _run(wrapper: BaseDatabaseWrapper, text: str, values: Sequence[Any]) -> Rows:
    with wrapper.cursor() as cursor:
        cursor.execute(text, values)
        return cursor.fetchall() if cursor.description else []
