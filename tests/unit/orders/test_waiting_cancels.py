"""Cancels that were asked for under the release before, which did not note them on their orders."""

from decimal import Decimal
from importlib import import_module

import pytest
from django.apps import apps
from django.db import connection, transaction

from orders.cancelling import cancel_order
from orders.models import Order
from orders.services import Item, place_order
from outbox import enqueue
from outbox.models import OutboxMessage, ParkedMessage

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stock")]


def migrate() -> None:
    found = import_module("orders.migrations.0003_note_waiting_cancels")
    with connection.schema_editor() as editor:
        found.note_waiting_cancels(apps, editor)


@pytest.mark.parametrize("is_parked", [False, True])
def test_those_that_wait_are_noted_by_the_migration(*, is_parked: bool) -> None:
    for key in ("asked", "left"):
        items = [Item("ITEM-1", "Widget", 1)]
        place_order(order_id=key, user_id="U", items=items, amount=Decimal(5))
    cancel_order(order_id="asked", reason="too dear")
    with transaction.atomic():
        enqueue(topic="orders.commands", key="x", type="orders.cancel", payload=["edited"])
        for payload in (
            {"order_id": ["left"]},
            {"order_id": "a\0b"},
            {"reason": "r"},
            "text",
            None,
        ):
            enqueue(topic="orders.commands", key="x", type="orders.cancel", payload=payload)
    broken = OutboxMessage.objects.filter(key="x", type="orders.cancel").latest("id")
    OutboxMessage.objects.filter(id=broken.id).update(payload=b"{not JSON")  # as edited by a person
    Order.objects.update(cancel_requested_at=None, cancel_reason="")  # as the old web left them
    if is_parked:
        row = OutboxMessage.objects.get(key="asked", type="orders.cancel")
        columns = ("topic", "key", "type", "payload", "message_id", "created_at")
        ParkedMessage.objects.create(
            id=row.id, key_hash=row.key_hash, reason="no such topic",
            **{name: getattr(row, name) for name in columns},
        )  # fmt: skip
        row.delete()
    migrate()
    asked, left = Order.objects.order_by("order_id")
    assert asked.cancel_requested_at is not None
    assert (asked.cancel_reason, left.cancel_requested_at) == ("too dear", None)
    first = asked.cancel_requested_at
    migrate()
    asked.refresh_from_db()
    assert asked.cancel_requested_at == first
