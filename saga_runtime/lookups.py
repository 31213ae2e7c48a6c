"""Look rows up by a unique column, with SQL that is made once.

Django's compiler makes the SQL anew for each query, which takes several times as long as the query.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import Model

from saga_runtime.round_trips import Rows, run

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True)
class _Query:
    """Hold a query as Django has compiled it.

    Attributes:
        sql: with one placeholder.
        columns: SQL for the columns.
        names: of the fields, in the order of the columns.
        convert: turns a row of the database into the fields' values.
    """

    sql: str
    columns: str
    names: Sequence[str]
    convert: Callable[[Sequence[Any]], Sequence[Any]]


class Lookup(Generic[M]):
    """Look rows of a model up by a unique field.

    Args:
        model: the model.
        field: the name of the unique field, whose values the database takes as they are.
    """

    def __init__(self, model: type[M], field: str) -> None:
        self._model = model
        self._field = field
        self._queries: dict[tuple[str, str], _Query] = {}

    def find(self, value: Any, *, using: str = DEFAULT_DB_ALIAS) -> M | None:
        """Return the row with the value; None where there is none.

        Args:
            value: of the unique field.
            using: alias of the database.
        """
        # By the vendor, too: a test may put another database under the same alias.
        query = self._queries.get((using, connections[using].vendor)) or self._compile(using)
        return self._instance(query, run(query.sql, [value], using=using), using)

    def update(
        self, value: Any, columns: Mapping[str, Any], *, using: str = DEFAULT_DB_ALIAS
    ) -> M | None:
        """Change the row with the value, and return it as it is then; None where there is none.

        Args:
            value: of the unique field.
            columns: the new value of each, as the database takes it.
            using: alias of the database.
        """
        connection = connections[using]
        query = self._queries.get((using, connection.vendor)) or self._compile(using)
        quoted = connection.ops.quote_name
        sets = ", ".join(f"{quoted(column)} = %s" for column in columns)
        meta: Any = self._model._meta  # noqa: SLF001
        table, where = quoted(meta.db_table), quoted(meta.get_field(self._field).column)
        text = f"UPDATE {table} SET {sets} WHERE {where} = %s RETURNING {query.columns}"  # noqa: S608
        return self._instance(query, run(text, [*columns.values(), value], using=using), using)

    def _instance(self, query: _Query, rows: Rows, using: str) -> M | None:
        """Make an instance of the row found, if any."""
        return self._model.from_db(using, query.names, query.convert(rows[0])) if rows else None

    def _compile(self, using: str) -> _Query:
        rows = self._model._base_manager.using(using).filter(**{self._field: ""})  # noqa: SLF001
        compiler = rows.query.get_compiler(using)
        sql, _ = compiler.as_sql()
        columns = [column for column, _, _ in compiler.select]
        converters = compiler.get_converters(columns)

        def convert(row: Sequence[Any]) -> Sequence[Any]:
            [values] = compiler.apply_converters([row], converters)
            return list(values)

        listed = ", ".join(connections[using].ops.quote_name(c.target.column) for c in columns)
        names = [column.target.attname for column in columns]
        query = _Query(sql, listed, names, convert)
        self._queries[using, connections[using].vendor] = query
        return query
