"""What the admin shows, and that it changes nothing."""

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client

from brokers import Record
from orders.services import Item, place_order
from outbox.models import OutboxMessage, ParkedIntervention, ParkedMessage
from sagas.inbox import accepting

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stock")]

OURS = ("orders", "outbox", "sagas")
MODELS = [m for m in admin.site._registry if m._meta.app_label in OURS]


@pytest.fixture
def boss() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("boss"))
    return client


@pytest.fixture
def _rows(stock: None) -> None:
    items = [Item("ITEM-1", "Widget", 2)]
    place_order(order_id="ORD-1", user_id="U", items=items, amount=10)  # type: ignore[arg-type]
    message = OutboxMessage.objects.get()
    fields = {f.name: getattr(message, f.name) for f in message._meta.fields}
    ParkedMessage.objects.create(**fields, reason="too large")
    ParkedIntervention.objects.create(
        message=1, key="ORD-1", action="skip", who="ann", why="x", payload_before=b'{"old": 1}'
    )
    record = Record(
        topic="orders.commands",
        partition=0,
        offset=0,
        key=b"k",
        value=bytes(message.payload),
        headers=(
            ("ce_specversion", b"1.0"),
            ("ce_id", b"1"),
            ("ce_type", b"orders.place"),
            ("ce_source", b"/test"),
        ),
    )
    accepting.accept([record, Record("orders.commands", 0, 1, None, b"\xff", ())], consumer="test")


def test_orders_stock_outbox_and_sagas_are_there() -> None:
    names = {model.__name__ for model in MODELS}
    assert {"Order", "Product", "OutboxMessage", "ParkedMessage", "Saga", "RefusedCommand"} <= names


@pytest.mark.usefixtures("_rows")
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_each_page_shows_its_rows_and_takes_no_changes(boss: Client, model: type) -> None:
    meta = model._meta  # type: ignore[attr-defined]
    base = f"/admin/{meta.app_label}/{meta.model_name}/"
    row = model._default_manager.first()  # type: ignore[attr-defined]
    assert row is not None

    assert boss.get(base).status_code == 200
    assert boss.get(f"{base}?q=ORD").status_code == 200
    assert boss.get(f"{base}{row.pk}/change/").status_code == 200
    assert boss.get(f"{base}add/").status_code == 403
    assert boss.post(f"{base}{row.pk}/delete/", {"post": "yes"}).status_code == 403
    assert model._default_manager.filter(pk=row.pk).exists()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("_rows")
def test_payloads_are_shown_as_text(boss: Client) -> None:
    pk = OutboxMessage.objects.get().pk
    page = boss.get(f"/admin/outbox/outboxmessage/{pk}/change/").content.decode()
    assert "&quot;order_id&quot;:&quot;ORD-1&quot;" in page
    pk = ParkedIntervention.objects.get().pk
    page = boss.get(f"/admin/outbox/parkedintervention/{pk}/change/").content.decode()
    assert "{&quot;old&quot;: 1}" in page
