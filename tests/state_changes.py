"""Record, by triggers, each change of a status in the sagas' tables."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

Change = tuple[str, str, str]
"""A table, the status before (empty for a new row) and the status after."""

_TABLES = ("sagas_saga", "sagas_step")


@contextmanager
def recorded() -> Iterator[set[Change]]:
    """Record the changes of this database until the block ends, whoever makes them.

    Yields:
        A set that holds the changes once the block has ended.
    """
    changes: set[Change] = set()
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE state_changes (tab text, was text, is_now text)")
        for table in _TABLES:
            for name, event, was in (
                ("inserted", "INSERT", "''"),
                ("updated", "UPDATE OF status", "OLD.status"),
            ):
                insert = f"INSERT INTO state_changes VALUES ('{table}', {was}, NEW.status)"  # noqa: S608
                _create_trigger(f"state_{table}_{name}", f"AFTER {event} ON {table}", insert)
    try:
        yield changes
    finally:
        with connection.cursor() as cursor:
            for table in _TABLES:
                for name in ("inserted", "updated"):
                    _drop_trigger(f"state_{table}_{name}", table)
            cursor.execute("SELECT DISTINCT tab, was, is_now FROM state_changes")
            changes.update(cursor.fetchall())
            cursor.execute("DROP TABLE state_changes")


def _create_trigger(name: str, event: str, statement: str) -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS"
                f" $$ BEGIN {statement}; RETURN NEW; END $$"
            )
            cursor.execute(f"CREATE TRIGGER {name} {event} FOR EACH ROW EXECUTE FUNCTION {name}()")
        else:
            cursor.execute(f"CREATE TRIGGER {name} {event} BEGIN {statement}; END")


def _drop_trigger(name: str, table: str) -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"DROP TRIGGER {name} ON {table}")
            cursor.execute(f"DROP FUNCTION {name}()")
        else:
            cursor.execute(f"DROP TRIGGER {name}")
