"""Inserts rows in one round trip, with SQL made once for each model: Django's compiler makes
it anew for each row, which is a good part of what a small transaction costs."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from django.db import connection
from django.db.models import Field, Model

_LOCK = "SELECT pg_advisory_xact_lock(%s)"


def insert(*rows: Model, lock: int | None = None) -> None:
    """Insert new rows one after the other; the database draws their ids. As with `bulk_create()`,
    there are no signals.

    Args:
        lock: on PostgreSQL, an advisory lock that is held from before the last row's id is drawn
            until the transaction ends. It is a statement of its own: nothing says that an
            expression in the INSERT would run before `nextval`.
    """
    if connection.vendor == "postgresql":
        _insert_together(rows, lock)
    else:
        for row in rows:
            row.save(force_insert=True)


def _insert_together(rows: Sequence[Model], lock: int | None) -> None:
    """PostgreSQL runs the statements of one text one after the other."""
    statements: list[tuple[str, list[Any], Model | None]] = [
        (_insert_sql(type(row)), _values(row), row) for row in rows
    ]
    if lock is not None:
        statements.insert(-1, (_LOCK, [lock], None))
    with connection.cursor() as cursor:
        cursor.execute(
            "; ".join(sql for sql, _, _ in statements),
            [value for _, values, _ in statements for value in values],
        )
        for _, _, row in statements:
            if row is not None:
                (row.pk,) = cursor.fetchone()
                row._state.adding = False  # noqa: SLF001
                row._state.db = connection.alias  # noqa: SLF001
            cursor.cursor.nextset()


def _values(row: Model) -> list[Any]:
    return [
        field.get_db_prep_save(field.pre_save(row, add=True), connection)
        for field in _fields(type(row))
    ]


@cache
def _fields(model: type[Model]) -> "Sequence[Field[Any, Any]]":
    return [
        field
        for field in model._meta.local_concrete_fields  # noqa: SLF001
        if not field.primary_key and not field.generated
    ]


@cache
def _insert_sql(model: type[Model]) -> str:
    meta = model._meta  # noqa: SLF001
    names = ", ".join(f'"{field.column}"' for field in _fields(model))
    places = ", ".join(["%s"] * len(_fields(model)))
    insert = f'INSERT INTO "{meta.db_table}" ({names}) VALUES ({places})'  # noqa: S608
    return f'{insert} RETURNING "{meta.pk.column}"'
