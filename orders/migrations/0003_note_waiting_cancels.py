"""Note the cancels that wait in the outbox on their orders: consumers refuse what is not noted."""

import json

from django.db import migrations
from django.utils import timezone


def note_waiting_cancels(apps, schema_editor):
    alias = schema_editor.connection.alias
    orders = apps.get_model("orders", "Order").objects.using(alias)
    for name in ("OutboxMessage", "ParkedMessage"):
        messages = apps.get_model("outbox", name).objects.using(alias).order_by("id")
        waiting = messages.filter(type="orders.cancel").values_list("payload", flat=True)
        for command in [json.loads(bytes(payload)) for payload in waiting]:
            if isinstance(command, dict):  # people may have edited a parked one
                orders.filter(order_id=command.get("order_id"), cancel_requested_at=None).update(
                    cancel_requested_at=timezone.now(), cancel_reason=str(command.get("reason", ""))
                )


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0002_cancel_requests"),
        ("outbox", "0006_replica_identity"),
    ]

    operations = [
        migrations.RunPython(note_waiting_cancels, migrations.RunPython.noop, elidable=True),
    ]
