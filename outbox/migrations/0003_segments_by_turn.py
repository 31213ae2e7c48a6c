"""On PostgreSQL a relay, no longer the clock, says which segment new rows go into: one that nobody
can empty gets no more of them.

A sequence holds the number. It is changed at once and for everybody, whatever transactions are open.
"""

from django.db import migrations

FORWARDS = [
    "CREATE SEQUENCE outbox_segment AS smallint MINVALUE 0 MAXVALUE 3",
    """
    CREATE FUNCTION outbox_current_segment() RETURNS smallint STABLE
    RETURN (SELECT last_value FROM outbox_segment)
    """,
    "ALTER TABLE outbox_message ALTER COLUMN segment SET DEFAULT outbox_current_segment()",
]
BACKWARDS = [
    """
    ALTER TABLE outbox_message ALTER COLUMN segment SET DEFAULT
        (floor(extract(epoch FROM statement_timestamp()) / 15)::bigint % 4)::smallint
    """,
    "DROP FUNCTION outbox_current_segment()",
    "DROP SEQUENCE outbox_segment",
]


def forwards(_apps, schema_editor):
    run(schema_editor, FORWARDS)


def backwards(_apps, schema_editor):
    run(schema_editor, BACKWARDS)


def run(schema_editor, statements):
    if schema_editor.connection.vendor == "postgresql":
        for statement in statements:
            schema_editor.execute(statement, params=None)


class Migration(migrations.Migration):
    dependencies = [("outbox", "0002_lanes")]

    operations = [migrations.RunPython(forwards, backwards)]
