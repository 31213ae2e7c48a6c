"""Look-ups by a unique column give what Django's own queries give."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from orders.models import BY_ORDER_ID, Order, Product
from orders.services import Item, place_order, receive_stock
from saga_runtime.lookups import Lookup

pytestmark = pytest.mark.django_db


def placed(order_id: str) -> Order:
    receive_stock(product_id="P", name="Widget", quantity=9)
    items = [Item(product_id="P", name="Wi'dget %s \u2603", quantity=2)]
    return place_order(order_id=order_id, user_id="U", items=items, amount=Decimal("10.00")).order


def fields(row: object) -> dict[str, object]:
    return {key: value for key, value in vars(row).items() if key != "_state"}


def test_every_field_is_as_in_a_query() -> None:
    order = placed("A")
    Order.objects.filter(pk=order.pk).update(
        cancel_requested_at=timezone.now() - timedelta(days=1), cancel_reason="why"
    )
    placed("B")
    for _ in range(2):
        found = BY_ORDER_ID.find("A")
        assert found is not None
        assert fields(found) == fields(Order.objects.get(order_id="A"))
        assert found == order
        assert str(found.amount) == "10.00"


def test_nothing_where_there_is_none() -> None:
    assert BY_ORDER_ID.find("nobody") is None
    assert BY_ORDER_ID.find("' OR 1=1 --") is None


def test_what_is_found_can_be_saved() -> None:
    placed("A")
    found = BY_ORDER_ID.find("A")
    assert found is not None
    found.reason = "changed"
    with CaptureQueriesContext(connection) as queries:
        found.save(update_fields=["reason"])
    assert queries[0]["sql"].startswith("UPDATE")
    assert Order.objects.get().reason == "changed"


def test_an_update_gives_the_row_as_it_is_then() -> None:
    order = placed("A")
    placed("B")
    for reason in ("it's \u2603", ""):
        changed = BY_ORDER_ID.update("A", {"reason": reason, "status": "rejected"})
        assert changed is not None
        assert fields(changed) == fields(Order.objects.get(order_id="A"))
        assert (changed.pk, changed.reason, changed.status) == (order.pk, reason, "rejected")
    assert Order.objects.get(order_id="B").status == "pending"
    assert BY_ORDER_ID.update("nobody", {"reason": "?"}) is None


def test_of_another_model() -> None:
    placed("A")
    found = Lookup(Product, "product_id").find("P")
    assert found is not None
    assert fields(found) == fields(Product.objects.get())
