"""A replica identity without a generated column, on PostgreSQL: an index on segment and id in each
segment. The segment comes first so that no read in the order of the ids is ever planned along it.

The primary key begins with `lane`, which is generated. PostgreSQL 18 refuses every DELETE on a
published table whose replica identity has such a column (`Replica identity must not contain
unpublished generated columns`), and a publication FOR ALL TABLES publishes the outbox too.

The indexes are made beside the work of writers and relays. Only the last step of each segment takes
its lock, which it waits for no longer than a moment at a time, since inserts wait behind it.
"""

import time

from django.db import OperationalError, migrations, transaction

SEGMENTS = 4
LOCK_NOT_AVAILABLE = "55P03"
ATTEMPTS = 60
PAUSE = 0.5  # seconds, between two attempts

STATE = "SELECT indisvalid, indisreplident FROM pg_index WHERE indexrelid = to_regclass(%s)"


def forwards(_apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        return
    for number in range(SEGMENTS):
        identify(schema_editor.connection, f"outbox_message_{number}")


def identify(connection, table):
    """Do what an earlier attempt has not done. A valid index is never dropped: it may be the replica
    identity already."""
    index = f"{table}_identity"
    is_valid, is_identity = state(connection, index)
    if not is_valid:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")
            cursor.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {index} ON {table} (segment, id)")
    if not is_identity:
        without_holding_up(connection, f"ALTER TABLE {table} REPLICA IDENTITY USING INDEX {index}")


def state(connection, index):
    with connection.cursor() as cursor:
        cursor.execute(STATE, [index])
        return cursor.fetchone() or (False, False)


def without_holding_up(connection, statement):
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout = '500ms'")
                cursor.execute(statement)
        except OperationalError as error:
            is_locked = getattr(error.__cause__, "sqlstate", "") == LOCK_NOT_AVAILABLE
            if not is_locked or attempt == ATTEMPTS:
                raise
            time.sleep(PAUSE)
        else:
            return


def backwards(_apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        return
    for number in range(SEGMENTS):
        table = f"outbox_message_{number}"
        without_holding_up(
            schema_editor.connection, f"ALTER TABLE {table} REPLICA IDENTITY DEFAULT"
        )
        with schema_editor.connection.cursor() as cursor:
            cursor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {table}_identity")


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("outbox", "0005_intervention_before")]

    operations = [migrations.RunPython(forwards, backwards)]
