"""Insert rows in one round trip, with SQL made once for each model.

Django's compiler makes the SQL anew for each row, a good part of what a small transaction costs.
Stored is the same as with `bulk_create()`, on every database and for every kind of model. Rows that
need more than values in an INSERT go to `bulk_create()`, a round trip each: expressions, database
defaults, fields with SQL of their own, composite keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from django.db import connection, router
from django.db.models import AutoField, BinaryField, Field, Model

from outbox.errors import RowError
from saga_runtime.round_trips import Statement, run_together

_LOCK = "SELECT pg_advisory_xact_lock(%s)"


def insert(*rows: Model, lock: int | None = None) -> None:
    """Insert new rows one after the other; the database draws missing ids.

    As with `bulk_create()`, there are no signals, and no model's own `save()` is called.

    Args:
        rows: unsaved instances, in the order of their inserts.
        lock: on PostgreSQL, an advisory lock, taken before the last row's id is drawn and held
            until the transaction ends. The lock is a statement of its own: PostgreSQL does not
            promise to evaluate an expression within the INSERT before `nextval`.
    """
    if connection.vendor == "postgresql":
        _insert_in_one_round_trip(rows, lock)
    else:
        for row in rows:
            _insert_by_bulk_create(row)


def check_rows(rows: Sequence[Model]) -> None:
    """Refuse rows that cannot be inserted, before anything is.

    Raises:
        RowError: a row is no model instance, is stored already or named twice, has a parent's
            table, or belongs into another database.
    """
    for number, row in enumerate(rows):
        reason = _reason_to_refuse(row)
        if any(row is earlier for earlier in rows[:number]):
            reason = "is named twice"
        if reason:
            raise RowError(f"insert_first=[…]: {type(row).__name__} {reason}")


def _reason_to_refuse(row: object) -> str:
    """Say why a row cannot be inserted; empty where nothing speaks against it."""
    if not isinstance(row, Model):
        return "is no row of a model"
    if not row._state.adding and row.pk is not None:  # noqa: SLF001 - what save() looks at
        return (
            f"{row.pk!r} is stored already: leave it out, it commits with the message all the same"
        )
    if _has_parent_table(type(row)):
        return "has a parent with a table of its own: save() it first, and leave it out"
    using = router.db_for_write(type(row), instance=row)
    if using != connection.alias:
        return f"belongs into the database {using!r}, the outbox is in {connection.alias!r}"
    return ""


@dataclass(slots=True)
class _Batch:
    """Collect statements for one round trip; PostgreSQL runs them one after the other.

    Attributes:
        statements: SQL with placeholders, and values for them.
        rows: for each statement, the row to be inserted, or None for the lock.
    """

    statements: list[Statement] = field(default_factory=list)
    rows: list[Model | None] = field(default_factory=list)

    def add(self, sql: str, values: Sequence[Any], row: Model | None = None) -> None:
        """Add a statement with the values for its placeholders."""
        self.statements.append((sql, values))
        self.rows.append(row)

    def send(self) -> None:
        """Run what is collected, and put the keys drawn by the database on the rows."""
        if not self.statements:
            return
        for row, found in zip(self.rows, run_together(*self.statements), strict=True):
            if row is not None:
                [(drawn,)] = found
                row.pk = drawn if row.pk is None else row.pk
                row._state.adding = False  # noqa: SLF001
                row._state.db = connection.alias  # noqa: SLF001
        self.statements, self.rows = [], []


def _insert_in_one_round_trip(rows: Sequence[Model], lock: int | None) -> None:
    """Insert rows together, as far as each is an INSERT of plain values."""
    batch = _Batch()
    for row in rows:
        if _refers_to_any(row, batch.rows):
            batch.send()  # its key is known only then
        values = _values(row)
        if lock is not None and row is rows[-1]:
            batch.add(_LOCK, [lock])
        if values is None:
            batch.send()
            _insert_by_bulk_create(row)
        else:
            batch.add(_insert_sql(type(row), with_key=row.pk is not None), values, row)
    batch.send()


def _insert_by_bulk_create(row: Model) -> None:
    """Insert a row by Django's own compiler."""
    type(row)._base_manager.using(connection.alias).bulk_create([row])  # noqa: SLF001


def _values(row: Model) -> list[Any] | None:
    """Compute the value of each column.

    Returns:
        The values in the order of `_fields()`, or None where only Django's compiler can insert the
        row.
    """
    model = type(row)
    if not _is_plain(model):
        return None
    if _relations(model):
        row._prepare_related_fields_for_save(operation_name="enqueue")  # type: ignore[attr-defined] # noqa: SLF001
    if row.pk is None:
        row.pk = model._meta.pk.get_pk_value_on_save(row)  # noqa: SLF001
    values = [
        each.get_db_prep_save(each.pre_save(row, add=True), connection)
        for each in _fields(model, with_key=row.pk is not None)
    ]
    return None if any(hasattr(value, "as_sql") for value in values) else values


def _refers_to_any(row: Model, others: Sequence[Model | None]) -> bool:
    """Tell whether a foreign key of the row points to one of these rows."""
    return any(
        each.is_cached(row) and any(getattr(row, each.name) is other for other in others if other)
        for each in _relations(type(row))
    )


@cache
def _is_plain(model: type[Model]) -> bool:
    """Tell whether an INSERT of values is all that rows of the model need."""
    meta = model._meta  # noqa: SLF001
    if meta.pk.column is None or hasattr(meta.pk, "from_db_value"):
        return False
    return not any(
        hasattr(each, "get_placeholder") or hasattr(each, "get_placeholder_sql")
        for each in meta.concrete_fields
        if not isinstance(each, BinaryField)  # its placeholder is any other's
    )


@cache
def _has_parent_table(model: type[Model]) -> bool:
    """Tell whether the model inherits from a model with a table of its own."""
    meta = model._meta  # noqa: SLF001
    return any(
        parent._meta.concrete_model is not meta.concrete_model  # noqa: SLF001
        for parent in meta.all_parents
    )


@cache
def _relations(model: type[Model]) -> "Sequence[Any]":
    """List the model's foreign keys, generic ones among them."""
    meta = model._meta  # noqa: SLF001
    generic = [each for each in meta.private_fields if each.is_relation]
    return [*(each for each in meta.concrete_fields if each.is_relation), *generic]


@cache
def _fields(model: type[Model], *, with_key: bool) -> "Sequence[Field[Any, Any]]":
    """List the fields of an INSERT, with or without the key."""
    return [
        each
        for each in model._meta.concrete_fields  # noqa: SLF001
        if not each.generated and (with_key or not isinstance(each, AutoField))
    ]


@cache
def _insert_sql(model: type[Model], *, with_key: bool) -> str:
    """Build the INSERT of a model, which returns the key."""
    quoted = connection.ops.quote_name
    meta: Any = model._meta  # noqa: SLF001
    fields = _fields(model, with_key=with_key)
    names = ", ".join(quoted(str(each.column)) for each in fields)
    places = ", ".join(["%s"] * len(fields))
    insert = f"INSERT INTO {quoted(meta.db_table)} ({names}) VALUES ({places})"  # noqa: S608
    return f"{insert} RETURNING {quoted(meta.pk.column)}"
