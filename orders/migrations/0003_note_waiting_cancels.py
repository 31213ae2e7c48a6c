"""Note the cancels that wait in the outbox on their orders: consumers refuse what is not noted."""

import json

from django.db import migrations
from django.utils import timezone

from saga_runtime.text import is_storable, storable


def note_waiting_cancels(apps, schema_editor):
    alias = schema_editor.connection.alias
    orders = apps.get_model("orders", "Order").objects.using(alias)
    for name in ("OutboxMessage", "ParkedMessage"):
        messages = apps.get_model("outbox", name).objects.using(alias).order_by("id")
        waiting = messages.filter(type="orders.cancel").values_list("payload", flat=True)
        for order_id, reason in [_order_and_reason(bytes(payload)) for payload in waiting]:
            orders.filter(order_id=order_id, cancel_requested_at=None).update(
                cancel_requested_at=timezone.now(), cancel_reason=reason
            )


def _order_and_reason(payload):
    """Return what a cancel says; no order where people have edited it into something else."""
    try:
        command = json.loads(payload)
        order_id, reason = command["order_id"], command.get("reason", "")
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return "", ""
    return (order_id if is_storable(order_id) else ""), storable(str(reason))


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0002_cancel_requests"),
        ("outbox", "0006_replica_identity"),
    ]

    operations = [
        migrations.RunPython(note_waiting_cancels, migrations.RunPython.noop, elidable=True),
    ]
