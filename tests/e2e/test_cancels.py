"""Cancels that race their orders: each order is undone as a whole, or fulfilled."""

import json
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import seed
from tests.e2e.full_service import FullService
from tests.e2e.service import until

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

AT_A_TIME = 4
WARM_UP = ("FIRST", "SECOND")
TOO_LATE = 409

# How far an order had come when it was cancelled.
DONE_BEFORE_CANCEL = """
    SELECT DISTINCT ARRAY(
        SELECT step::text FROM sagas_step
        WHERE saga_id = saga.id AND kind = 'F' AND status = 'done' ORDER BY id
    ) FROM sagas_saga saga WHERE cancelled
"""
WHOLLY_UNDONE = """
    SELECT order_id FROM orders_order o WHERE status = 'cancelled'
    AND NOT EXISTS (SELECT FROM orders_shipment WHERE order_id = o.id)
    AND NOT EXISTS (SELECT FROM orders_reservation WHERE order_id = o.id AND status <> 'released')
    AND NOT EXISTS (SELECT FROM orders_payment WHERE order_id = o.id AND status <> 'refunded')
    AND NOT EXISTS (
        SELECT FROM orders_simulatedcharge WHERE reference = o.order_id AND status = 'charged'
    )
"""
SHIPPED_AND_PAID = """
    SELECT o.order_id FROM orders_order o
    JOIN orders_shipment s ON s.order_id = o.id
    JOIN orders_payment p ON p.order_id = o.id AND p.status = 'charged'
    JOIN orders_simulatedcharge c ON c.reference = o.order_id AND c.status = 'charged'
    WHERE o.status = 'fulfilled'
"""


def test_each_order_is_undone_or_fulfilled(full_service: FullService) -> None:
    outcomes, _ = race_cancels(full_service, count=60)
    assert min(outcomes["cancelled"], outcomes["fulfilled"]) >= 1


@pytest.mark.soak
def test_each_of_five_hundred_is_undone_or_fulfilled(full_service: FullService) -> None:
    outcomes, stages = race_cancels(full_service, count=500)
    assert min(outcomes["cancelled"], outcomes["fulfilled"]) >= 25
    # The reservation commits with the start of the charge: there is nothing between the two.
    assert stages == {
        (),
        ("reserve_inventory", "charge_payment"),
    }, "cancels came before and after every step that can be undone"


def race_cancels(
    service: FullService, *, count: int
) -> tuple[dict[str, int], set[tuple[str, ...]]]:
    """How many orders ended which way, and the steps after which they were cancelled."""
    service.start(PAYMENT_GATEWAY_URL="simulated://?delay=0.05")
    stock = stock_of(service)
    *_, longest = [seconds_of(service, order_id) for order_id in WARM_UP]
    order_ids = [f"ORD-{number:04}" for number in range(count)]
    late = place_and_cancel(service, order_ids, longest_delay=2 * longest)
    count += len(WARM_UP)
    until(lambda: len(service.ended_orders()), reaches=count, timeout=60)

    statuses = dict(service.query("SELECT order_id, status FROM orders_order"))
    assert set(statuses.values()) == {"cancelled", "fulfilled"}
    assert {order_id for order_id in late if statuses[order_id] != "fulfilled"} == set()
    ended = {
        status: {order_id for order_id in statuses if statuses[order_id] == status}
        for status in ("cancelled", "fulfilled")
    }
    assert {order_id for (order_id,) in service.query(WHOLLY_UNDONE)} == ended["cancelled"]
    assert {order_id for (order_id,) in service.query(SHIPPED_AND_PAID)} == ended["fulfilled"]
    assert stock_of(service) == stock - len(ended["fulfilled"]) * seed.ORDER["items"][0]["quantity"]
    until(lambda: len(service.kafka_records("orders.events")), reaches=count, timeout=20)
    assert sorted(published_events(service)) == sorted(
        (order_id, f"order.{status}") for order_id, status in statuses.items()
    )
    service.assert_nothing_was_done_twice()
    service.assert_audit_is_clean()
    assert "Traceback" not in service.output
    stages = {tuple(steps) for (steps,) in service.query(DONE_BEFORE_CANCEL)}
    return {status: len(ids) for status, ids in ended.items()}, stages


def seconds_of(service: FullService, order_id: str) -> float:
    """How long an order takes here and now."""
    began = time.monotonic()
    service.post(seed.order(order_id=order_id), Prefer="wait=30")
    return time.monotonic() - began


def place_and_cancel(
    service: FullService, order_ids: Sequence[str], *, longest_delay: float
) -> set[str]:
    """Each order is placed, and its cancel sent after a random while, of a third of them at once;
    returns those for which it was too late."""
    chance = random.Random(10)
    delays = [max(0.0, chance.uniform(-longest_delay / 2, longest_delay)) for _ in order_ids]

    def race(order_id: str, delay: float) -> bool:
        assert service.post(seed.order(order_id=order_id)).status_code == 202
        time.sleep(delay)
        answer = service.cancel(order_id)
        assert answer.status_code in (202, TOO_LATE), answer.text
        return answer.status_code == TOO_LATE

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        too_late = list(pool.map(race, order_ids, delays))
    return {order_id for order_id, late in zip(order_ids, too_late, strict=True) if late}


def stock_of(service: FullService) -> int:
    [(on_hand, reserved)] = service.query(
        "SELECT on_hand, reserved FROM orders_product WHERE product_id = 'ITEM-1'"
    )
    assert reserved == 0
    return int(on_hand)


def published_events(service: FullService) -> list[tuple[str, str]]:
    """Order id and type of every event that Kafka has."""
    events = []
    for record in service.kafka_records("orders.events"):
        headers = {name: (value or b"").decode() for name, value in record.headers}
        events.append((json.loads(record.value or b"")["order_id"], headers["ce_type"]))
    return events
