"""How many lanes each relay takes at most, so that the others know what is left to them."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("outbox", "0003_segments_by_turn")]

    operations = [
        migrations.AddField(
            model_name="outboxrelay",
            name="lanes_max",
            field=models.IntegerField(
                db_default=32, default=32, help_text="how many lanes it takes at most"
            ),
        ),
    ]
