"""The journal of every saga, and the inbox through which commands become sagas."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="InboxMessage",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("consumer", models.CharField(max_length=255)),
                ("source", models.CharField(max_length=512)),
                ("message_id", models.CharField(max_length=255)),
                (
                    "received_at",
                    models.DateTimeField(db_index=True, default=django.utils.timezone.now),
                ),
            ],
            options={
                "db_table": "sagas_inbox",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("consumer", "source", "message_id"), name="sagas_inbox_once"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="RefusedCommand",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("topic", models.CharField(max_length=249)),
                ("partition", models.IntegerField()),
                ("offset", models.BigIntegerField()),
                ("key", models.BinaryField(null=True)),
                ("value", models.BinaryField(null=True)),
                ("headers", models.JSONField(help_text="names, and values as base64")),
                ("reason", models.TextField()),
                ("received_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "content_hash",
                    models.CharField(
                        blank=True,
                        db_default="",
                        default="",
                        editable=False,
                        help_text="SHA-256 of key, value and headers",
                        max_length=64,
                    ),
                ),
            ],
            options={
                "db_table": "sagas_refused_command",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("topic", "partition", "offset", "content_hash"),
                        name="sagas_refused_each",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Saga",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=255)),
                ("key", models.CharField(max_length=255)),
                ("version", models.PositiveIntegerField(default=1)),
                ("definition_hash", models.CharField(max_length=64)),
                ("input", models.TextField(help_text="the context it started with, encoded")),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("running", "Running"),
                            ("waiting", "Waiting"),
                            ("compensating", "Compensating"),
                            ("cancelling", "Cancelling"),
                            ("completed", "Completed"),
                            ("rolled_back", "Rolled Back"),
                            ("parked", "Parked"),
                        ],
                        default="pending",
                        max_length=16,
                    ),
                ),
                ("paused", models.BooleanField(default=False)),
                ("epoch", models.PositiveBigIntegerField(default=0)),
                ("worker", models.CharField(blank=True, default="", max_length=64)),
                (
                    "next_run_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now,
                        help_text="when a worker may claim it; while it runs, the lease's end",
                    ),
                ),
                (
                    "deadline",
                    models.DateTimeField(
                        blank=True,
                        help_text="when it is undone, or past its pivot parked",
                        null=True,
                    ),
                ),
                (
                    "failure",
                    models.TextField(blank=True, default="", help_text="what decided against it"),
                ),
                ("park_reason", models.TextField(blank=True, default="")),
                ("correlation_id", models.CharField(blank=True, default="", max_length=128)),
                ("traceparent", models.CharField(blank=True, default="", max_length=64)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                (
                    "cancel_reason",
                    models.TextField(
                        blank=True,
                        db_default="",
                        default="",
                        help_text="why a cancel was asked for, if one was",
                    ),
                ),
                (
                    "cancelled",
                    models.BooleanField(
                        db_default=False, default=False, help_text="a cancel decided against it"
                    ),
                ),
                (
                    "past_pivot",
                    models.BooleanField(
                        db_default=False, default=False, help_text="it can no longer be undone"
                    ),
                ),
                (
                    "takeovers",
                    models.PositiveIntegerField(
                        db_default=0,
                        default=0,
                        help_text="workers that it lost in a row without getting on",
                    ),
                ),
            ],
            options={
                "db_table": "sagas_saga",
                "indexes": [
                    models.Index(
                        condition=models.Q(
                            ("paused", False),
                            (
                                "status__in",
                                ("pending", "running", "waiting", "compensating", "cancelling"),
                            ),
                        ),
                        fields=["next_run_at"],
                        name="sagas_claimable",
                    ),
                    models.Index(fields=["key"], name="sagas_by_key"),
                    models.Index(fields=["-created_at"], name="sagas_newest"),
                    models.Index(
                        condition=models.Q(
                            (
                                "status__in",
                                ("waiting", "compensating", "cancelling", "parked", "rolled_back"),
                            ),
                            ("paused", True),
                            _connector="OR",
                        ),
                        fields=["status", "-created_at"],
                        name="sagas_unusual",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="SagaStep",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("step", models.CharField(max_length=255)),
                (
                    "kind",
                    models.CharField(
                        choices=[("F", "Forward"), ("C", "Compensation")], max_length=1
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("started", "Started"),
                            ("done", "Done"),
                            ("failed", "Failed"),
                            ("unknown", "Unknown"),
                            ("skipped", "Skipped"),
                        ],
                        max_length=16,
                    ),
                ),
                (
                    "attempt",
                    models.PositiveIntegerField(
                        default=1, help_text="the number of the last attempt"
                    ),
                ),
                ("key", models.CharField(help_text="idempotency key", max_length=600)),
                ("result", models.TextField(blank=True, default="")),
                ("error", models.TextField(blank=True, default="")),
                ("resolved_by", models.CharField(blank=True, default="", max_length=255)),
                ("started_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                (
                    "saga",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="steps",
                        to="sagas.saga",
                    ),
                ),
                (
                    "failures",
                    models.PositiveIntegerField(
                        db_default=0,
                        default=0,
                        help_text="attempts that failed, of those that max_retries allows",
                    ),
                ),
            ],
            options={
                "db_table": "sagas_step",
                "constraints": [
                    models.UniqueConstraint(fields=("saga", "step", "kind"), name="sagas_step_once")
                ],
            },
        ),
        migrations.CreateModel(
            name="Intervention",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("action", models.CharField(max_length=16)),
                ("step", models.CharField(blank=True, default="", max_length=255)),
                ("kind", models.CharField(blank=True, default="", max_length=1)),
                ("who", models.CharField(max_length=255)),
                ("why", models.TextField()),
                ("at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "saga",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="interventions",
                        to="sagas.saga",
                    ),
                ),
            ],
            options={
                "db_table": "sagas_intervention",
                "ordering": ("at", "id"),
            },
        ),
        migrations.CreateModel(
            name="SagaAttempt",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("step", models.CharField(max_length=255)),
                (
                    "kind",
                    models.CharField(
                        choices=[("F", "Forward"), ("C", "Compensation")], max_length=1
                    ),
                ),
                ("attempt", models.PositiveIntegerField()),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("started", "Started"),
                            ("done", "Done"),
                            ("failed", "Failed"),
                            ("unknown", "Unknown"),
                            ("skipped", "Skipped"),
                        ],
                        max_length=16,
                    ),
                ),
                ("error", models.TextField(blank=True, default="")),
                ("worker", models.CharField(max_length=64)),
                ("started_at", models.DateTimeField()),
                ("at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "saga",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="attempts",
                        to="sagas.saga",
                    ),
                ),
                (
                    "traceback",
                    models.TextField(
                        blank=True, db_default="", default="", help_text="of the last attempt, cut"
                    ),
                ),
            ],
            options={
                "db_table": "sagas_attempt",
                "ordering": ("id",),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("saga", "step", "kind", "attempt", "status"),
                        name="sagas_attempt_once",
                    )
                ],
            },
        ),
    ]
