"""`sagas.testing.deliver_commands`: from the outbox to the inbox, without a relay and a broker."""

from decimal import Decimal

import pytest
from django.db import transaction

from orders.models import Order
from orders.services import Item, place_order
from outbox import enqueue
from outbox.models import OutboxMessage
from saga_runtime.correlation import Correlation, correlated
from sagas.models import InboxMessage, RefusedCommand, Saga
from sagas.testing import deliver_commands

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stock")]


@pytest.fixture
def order() -> Order:
    items = [Item("ITEM-1", "Widget", 2)]
    with correlated(Correlation("my-trace", "")):
        return place_order(
            order_id="ORD-001", user_id="U", items=items, amount=Decimal("99.99")
        ).order


def test_a_command_becomes_its_saga(order: Order) -> None:
    sent = OutboxMessage.objects.get()
    assert deliver_commands() == 1
    saga = Saga.objects.get()
    assert (saga.id, saga.correlation_id) == (order.saga_id, "my-trace")
    noted = InboxMessage.objects.get()
    assert (noted.message_id, noted.source) == (str(sent.message_id), "/django-saga-outbox")
    assert not OutboxMessage.objects.exists()


def test_once_more_there_is_nothing_to_deliver(order: Order) -> None:
    deliver_commands()
    assert deliver_commands() == 0
    assert Saga.objects.count() == 1


def test_events_stay() -> None:
    with transaction.atomic():
        enqueue(topic="orders.events", key="K", type="order.fulfilled", payload={})
    assert deliver_commands() == 0
    assert OutboxMessage.objects.count() == 1


def test_what_cannot_become_a_saga_is_kept_as_refused() -> None:
    with transaction.atomic():
        enqueue(topic="orders.commands", key="K", type="no.such", payload={})
    assert deliver_commands() == 0
    assert "no.such" in RefusedCommand.objects.get().reason
    assert not OutboxMessage.objects.exists()
