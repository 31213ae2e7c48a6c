"""The outbox with its lanes and their leases, and on PostgreSQL its rotating segments.

There `outbox_message` is partitioned by a column `segment`, which no model names: the database fills
it in from a sequence that the relay advances, at once and for every open transaction.
"""

import uuid

import django.utils.timezone
from django.db import migrations, models

LANES = 32
SEGMENTS = 4

CREATE = [
    f"CREATE SEQUENCE outbox_segment AS smallint MINVALUE 0 MAXVALUE {SEGMENTS - 1}",
    """
    CREATE FUNCTION outbox_current_segment() RETURNS smallint STABLE
    RETURN (SELECT last_value FROM outbox_segment)
    """,
    "CREATE SEQUENCE outbox_message_number AS bigint",
    f"""
    CREATE TABLE outbox_message (
        id bigint NOT NULL DEFAULT nextval('outbox_message_number'),
        message_id uuid NOT NULL,
        topic varchar(249) NOT NULL,
        key varchar(255) NOT NULL,
        key_hash bigint NOT NULL,
        type varchar(255) NOT NULL,
        payload bytea NOT NULL,
        headers jsonb NOT NULL,
        correlation_id varchar(128) NOT NULL,
        traceparent varchar(64) NOT NULL,
        created_at timestamptz NOT NULL,
        lane integer GENERATED ALWAYS AS (key_hash % {LANES}) STORED,
        segment smallint NOT NULL DEFAULT outbox_current_segment(),
        PRIMARY KEY (lane, id, segment)
    ) PARTITION BY LIST (segment)
    """,
    "ALTER SEQUENCE outbox_message_number OWNED BY outbox_message.id",
]
# PostgreSQL 18 refuses every DELETE on a published table whose replica identity has a generated
# column, as the primary key has with `lane`; a publication FOR ALL TABLES publishes the outbox too.
# The segment comes first in the index so that no read in the order of the ids is planned along it.
CREATE_SEGMENT = [
    "CREATE TABLE {table} PARTITION OF outbox_message FOR VALUES IN ({number})",
    "CREATE UNIQUE INDEX {table}_identity ON {table} (segment, id)",
    "ALTER TABLE {table} REPLICA IDENTITY USING INDEX {table}_identity",
]
DROP = ["DROP FUNCTION outbox_current_segment()", "DROP SEQUENCE outbox_segment"]


class CreateSegmentedModel(migrations.CreateModel):
    """Create a table: partitioned by our own statements on PostgreSQL, by Django's elsewhere."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        if not self._is_ours(app_label, schema_editor, to_state):
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        segments = [
            statement.format(table=f"outbox_message_{number}", number=number)
            for number in range(SEGMENTS)
            for statement in CREATE_SEGMENT
        ]
        for statement in CREATE + segments:
            schema_editor.execute(statement, params=None)

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        super().database_backwards(app_label, schema_editor, from_state, to_state)
        if self._is_ours(app_label, schema_editor, from_state):
            for statement in DROP:  # the table's default needed them
                schema_editor.execute(statement, params=None)

    def _is_ours(self, app_label, schema_editor, state):
        """Tell whether the database is PostgreSQL, and its router lets this table be there."""
        model = state.apps.get_model(app_label, self.name)
        connection = schema_editor.connection
        return connection.vendor == "postgresql" and self.allow_migrate_model(
            connection.alias, model
        )


def fill_lanes(apps, schema_editor):
    lanes = apps.get_model("outbox", "OutboxLane")
    rows = lanes.objects.using(schema_editor.connection.alias)
    rows.bulk_create([lanes(lane=lane) for lane in range(LANES)])


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        CreateSegmentedModel(
            name="OutboxMessage",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("message_id", models.UUIDField(default=uuid.uuid4, editable=False)),
                ("topic", models.CharField(max_length=249)),
                ("key", models.CharField(max_length=255)),
                ("key_hash", models.BigIntegerField(help_text="murmur2 of the key")),
                ("type", models.CharField(max_length=255)),
                ("payload", models.BinaryField(help_text="the exact bytes that are sent")),
                ("headers", models.JSONField(blank=True, default=dict)),
                ("correlation_id", models.CharField(blank=True, default="", max_length=128)),
                ("traceparent", models.CharField(blank=True, default="", max_length=64)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "lane",
                    models.GeneratedField(
                        db_persist=True,
                        expression=models.F("key_hash") % LANES,
                        output_field=models.IntegerField(),
                    ),
                ),
            ],
            options={"db_table": "outbox_message", "ordering": ("id",)},
        ),
        migrations.CreateModel(
            name="ParkedMessage",
            fields=[
                ("message_id", models.UUIDField(default=uuid.uuid4, editable=False)),
                ("topic", models.CharField(max_length=249)),
                ("key", models.CharField(max_length=255)),
                ("key_hash", models.BigIntegerField(help_text="murmur2 of the key")),
                ("type", models.CharField(max_length=255)),
                ("payload", models.BinaryField(help_text="the exact bytes that are sent")),
                ("headers", models.JSONField(blank=True, default=dict)),
                ("correlation_id", models.CharField(blank=True, default="", max_length=128)),
                ("traceparent", models.CharField(blank=True, default="", max_length=64)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("reason", models.TextField()),
                ("parked_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "lane",
                    models.GeneratedField(
                        db_persist=True,
                        expression=models.F("key_hash") % LANES,
                        output_field=models.IntegerField(),
                    ),
                ),
            ],
            options={
                "db_table": "outbox_parked",
                "ordering": ("id",),
                "indexes": [
                    models.Index(fields=["lane", "key", "id"], name="outbox_parked_by_key")
                ],
            },
        ),
        migrations.CreateModel(
            name="OutboxLane",
            fields=[
                ("lane", models.IntegerField(primary_key=True, serialize=False)),
                ("owner", models.CharField(blank=True, default="", max_length=64)),
                ("epoch", models.BigIntegerField(default=0)),
                ("until", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={"db_table": "outbox_lane", "ordering": ("lane",)},
        ),
        migrations.CreateModel(
            name="OutboxRelay",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("started_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("until", models.DateTimeField()),
                (
                    "lanes_max",
                    models.IntegerField(
                        db_default=LANES, default=LANES, help_text="how many lanes it takes at most"
                    ),
                ),
            ],
            options={"db_table": "outbox_relay"},
        ),
        migrations.CreateModel(
            name="ParkedIntervention",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "message",
                    models.BigIntegerField(help_text="the id that the message had in the outbox"),
                ),
                ("key", models.CharField(max_length=255)),
                ("action", models.CharField(max_length=16)),
                ("who", models.CharField(max_length=255)),
                ("why", models.TextField()),
                (
                    "payload_before",
                    models.BinaryField(help_text="where it was edited or skipped", null=True),
                ),
                ("at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "before",
                    models.JSONField(
                        help_text="the rest of what it was, as far as it is lost", null=True
                    ),
                ),
            ],
            options={"db_table": "outbox_intervention", "ordering": ("id",)},
        ),
        migrations.RunPython(fill_lanes, migrations.RunPython.noop),
    ]
