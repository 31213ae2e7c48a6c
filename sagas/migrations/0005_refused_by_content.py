"""A refused command at a place where another one was before is kept too.

Consumers of the version before go on beside it: they leave the new column empty, and the old
constraint goes last.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("sagas", "0004_find_sagas"),
    ]

    operations = [
        migrations.AddField(
            model_name="refusedcommand",
            name="content_hash",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                editable=False,
                help_text="SHA-256 of key, value and headers; empty in rows of earlier versions",
                max_length=64,
            ),
        ),
        migrations.AddConstraint(
            model_name="refusedcommand",
            constraint=models.UniqueConstraint(
                fields=("topic", "partition", "offset", "content_hash"), name="sagas_refused_each"
            ),
        ),
        migrations.RemoveConstraint(
            model_name="refusedcommand",
            name="sagas_refused_once",
        ),
    ]
