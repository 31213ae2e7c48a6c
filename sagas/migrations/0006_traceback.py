"""The traceback of a step's last attempt. With a default of the database's own, which a worker of the
release before needs, and which rewrites no row."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("sagas", "0005_refused_by_content")]

    operations = [
        migrations.AddField(
            model_name="sagaattempt",
            name="traceback",
            field=models.TextField(
                blank=True, db_default="", default="", help_text="of the last attempt, cut"
            ),
        ),
    ]
