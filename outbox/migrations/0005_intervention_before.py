"""What a message was before it was edited or skipped, besides its payload."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("outbox", "0004_relay_lanes_max")]

    operations = [
        migrations.AddField(
            model_name="parkedintervention",
            name="before",
            field=models.JSONField(
                help_text="the rest of what it was, as far as it is lost", null=True
            ),
        ),
    ]
