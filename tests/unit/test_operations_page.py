"""What the how-to guides have an operator type works as it stands there."""

import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from django.core.management import call_command
from django.utils import timezone

from brokers import Record
from orders import fulfilment
from orders.audit import audit_orders
from orders.models import Order, Payment
from orders.services import Item, place_order
from outbox.models import OutboxMessage
from sagas.inbox import accepting
from sagas.models import RefusedCommand, Saga, StepKind

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stock")]

GUIDES = Path(__file__).parents[2] / "docs/how-to"


@pytest.fixture
def order() -> Order:
    items = [Item("ITEM-1", "Widget", 2)]
    placed = place_order(order_id="ORD-001", user_id="U", items=items, amount=Decimal("99.99"))
    return placed.order


def type_in(guide: str) -> None:
    """Run the script of `manage.py shell` that stands in this guide."""
    text = (GUIDES / guide).read_text()
    found = re.search(r'manage\.py shell -c "\n(.*?)"\n', text, re.DOTALL)
    assert found is not None
    call_command("shell", command=found[1], verbosity=0)


def sent() -> list[Record]:
    """Take what is in the outbox, as it comes out of the topic."""
    records = []
    for row in OutboxMessage.objects.order_by("id"):
        event = {"specversion": "1.0", "id": str(row.message_id), "type": row.type, "source": "/o"}
        headers = tuple((f"ce_{name}", text.encode()) for name, text in event.items())
        records.append(Record(row.topic, 0, row.id, row.key.encode(), bytes(row.payload), headers))
    OutboxMessage.objects.all().delete()
    return records


def test_an_order_that_stays_pending_is_found_and_sent_again(order: Order) -> None:
    genuine = sent()
    Order.objects.update(order_id="hidden")  # the command is read before its order can be seen
    assert accepting.accept(genuine, consumer="sagas") == 0
    Order.objects.update(order_id=order.order_id)
    assert RefusedCommand.objects.get().reason == "there is no order 'ORD-001'"
    later = timezone.now() + timedelta(hours=2)
    [found] = audit_orders(now=later, max_age=timedelta(hours=1)).contradictions
    assert found.about == "ORD-001"
    assert "no saga has begun: its command waits, or was refused" in found.what
    for accepted in (1, 0):  # a second time changes nothing
        type_in("send-a-lost-command-again.md")
        assert accepting.accept(sent(), consumer="sagas") == accepted
    assert Saga.objects.get().id == order.saga_id
    [found] = audit_orders(now=later, max_age=timedelta(hours=1)).contradictions
    assert "no saga" not in found.what


def test_a_payment_that_the_books_do_not_have_is_entered_under_the_steps_own_key(
    order: Order,
) -> None:
    fulfilment.reserve_stock(order_id=order.order_id)
    type_in("resolve-a-parked-saga.md")
    payment = Payment.objects.get()
    assert payment.key == f"{order.saga_id}:charge_payment:{StepKind.FORWARD}"
    assert fulfilment.ship(order_id=order.order_id).order_id == order.pk
