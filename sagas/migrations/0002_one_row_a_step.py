"""Keep the last attempt at a step in the step's row."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("sagas", "0001_initial"),
    ]

    operations = [
        # With defaults in the database: workers of the release before go on inserting meanwhile.
        migrations.AddField(
            model_name="sagastep",
            name="traceback",
            field=models.TextField(
                blank=True, db_default="", default="", help_text="of the error, cut"
            ),
        ),
        migrations.AddField(
            model_name="sagastep",
            name="worker",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="of the last attempt",
                max_length=64,
            ),
        ),
        # Only the index: Django would make the foreign key anew, too, and PostgreSQL would then
        # check it for every row while nobody can write.
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    "DROP INDEX IF EXISTS sagas_step_saga_id_a0930111",
                    "CREATE INDEX sagas_step_saga_id_a0930111 ON sagas_step (saga_id)",
                )
            ],
            state_operations=[
                migrations.AlterField(
                    model_name="sagastep",
                    name="saga",
                    field=models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="steps",
                        to="sagas.saga",
                    ),
                ),
            ],
        ),
    ]
