"""Indexes by which people find sagas; on PostgreSQL made while sagas run."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import ProjectState


class AddIndexBesideWork(AddIndexConcurrently):
    """What an earlier attempt has left unfinished is removed first. Elsewhere than on PostgreSQL it
    is an index like any other."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        if schema_editor.connection.vendor != "postgresql":
            migrations.AddIndex.database_forwards(
                self, app_label, schema_editor, from_state, to_state
            )
            return
        name = schema_editor.quote_name(self.index.name)
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        super().database_forwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        if schema_editor.connection.vendor == "postgresql":
            super().database_backwards(app_label, schema_editor, from_state, to_state)
            return
        migrations.AddIndex.database_backwards(self, app_label, schema_editor, from_state, to_state)


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("sagas", "0003_cancel_takeovers_attempts"),
    ]

    operations = [
        AddIndexBesideWork(
            model_name="saga",
            index=models.Index(fields=["key"], name="sagas_by_key"),
        ),
        AddIndexBesideWork(
            model_name="saga",
            index=models.Index(fields=["-created_at"], name="sagas_newest"),
        ),
        AddIndexBesideWork(
            model_name="saga",
            index=models.Index(
                fields=["status", "-created_at"],
                name="sagas_unusual",
                condition=models.Q(
                    (
                        "status__in",
                        ("waiting", "compensating", "cancelling", "parked", "rolled_back"),
                    ),
                    ("paused", True),
                    _connector="OR",
                ),
            ),
        ),
    ]
