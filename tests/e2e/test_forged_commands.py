"""Forged commands over Kafka: each is kept with its reason, and the order goes its way."""

import json
import uuid
from contextlib import closing
from typing import Any

import pytest

from brokers import Message, broker_from_url
from tests import seed
from tests.e2e.full_service import PARTITIONS
from tests.e2e.project.parts import Parts
from tests.e2e.service import until

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

ORDER = seed.order(order_id="F", amount=900)
SAID = ORDER | {"amount": "900.00"}


def forge(parts: Parts, type_: str, payload: dict[str, Any]) -> None:
    """Write to the topic as whoever reaches the broker can."""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": str(uuid.uuid4()),
        "ce_type": type_,
        "ce_source": "/django-saga-outbox",
        "content-type": "application/json",
    }
    message = Message(
        "orders.commands",
        "F",
        json.dumps(payload).encode(),
        tuple((name, text.encode()) for name, text in headers.items()),
    )
    broker = broker_from_url(parts.env["SAGAZ_BROKER_URL"], partitions=PARTITIONS)
    with closing(broker.publisher()) as publisher:
        publisher.publish(message, token=1)
        until(lambda: publisher.reports(timeout=1), timeout=30)


def refused(parts: Parts) -> list[str]:
    rows = parts.query('SELECT reason FROM sagas_refused_command ORDER BY "offset"')
    return [reason for (reason,) in rows]


def test_the_row_decides(parts: Parts) -> None:
    parts.start()
    forge(parts, "orders.place", SAID | {"amount": "0.01"})
    forge(parts, "orders.place", SAID)
    forge(parts, "orders.cancel", {"order_id": "F", "reason": "forged"})
    parts.start_consumers(1)
    until(lambda: len(refused(parts)), reaches=3, timeout=60)
    assert parts.query("SELECT count(*) FROM sagas_saga") == [(0,)]

    assert parts.post(ORDER).status_code == 202
    forge(parts, "orders.place", SAID | {"amount": "0.01"})
    forge(parts, "orders.cancel", {"order_id": "F", "reason": "forged"})
    until(lambda: len(refused(parts)), reaches=5, timeout=60)
    until(lambda: parts.statuses() == {"fulfilled": 1}, timeout=60)

    differing = "amount of the command differ from those of order F"
    unknown, unasked = "there is no order 'F'", "nobody has asked this service to cancel order F"
    assert refused(parts) == [unknown, unknown, unknown, differing, unasked]
    assert parts.query("SELECT amount::text FROM orders_simulatedcharge") == [("900.00",)]
    parts.assert_audit_is_clean()
