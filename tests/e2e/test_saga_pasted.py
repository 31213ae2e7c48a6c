"""A plain sagaz saga, the one that sagaz ships as its Django example, pasted into an app."""

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import sagaz

from tests.e2e.project.parts import HARDLY_ANY_BACKOFF, Parts
from tests.e2e.service import until

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

EXAMPLE = Path(sagaz.__file__).parent / "examples/integrations/django_app/orders/sagas.py"
TOPIC = "shop.commands"
MAX_CONCURRENT = 5
LIMIT = 1000
GIVEN_UP = "charge_payment failed (4 of 4): ValueError: Payment declined"

HELD = """
    SELECT count(*) FROM sagas_saga
    WHERE finished_at IS NULL AND worker <> '' AND next_run_at > now()
"""
IN_THE_MIDDLE = (
    "SELECT count(*) FROM sagas_step WHERE step = 'charge_payment' AND status = 'started'"
)
ENDED = "SELECT count(*) FROM sagas_saga WHERE finished_at IS NOT NULL"
STATUSES = "SELECT key, status FROM sagas_saga WHERE name = 'django-order'"
STEPS = """
    SELECT g.key, s.step || ':' || s.kind, s.status, s.attempt
    FROM sagas_step s JOIN sagas_saga g ON g.id = s.saga_id ORDER BY s.id
"""
WORKERS = """
    SELECT saga_id FROM (
        SELECT saga_id, worker FROM sagas_step UNION SELECT saga_id, worker FROM sagas_attempt
    ) AS attempts GROUP BY saga_id HAVING count(*) > 1
"""
# Of each call that came back: when it began and ended.
CALLS = """
    SELECT started_at, finished_at FROM sagas_step WHERE finished_at IS NOT NULL
    UNION ALL SELECT started_at, at FROM sagas_attempt WHERE status <> 'started'
"""

COMPLETED = {
    "reserve_inventory:F": "done",
    "charge_payment:F": "done",
    "ship_order:F": "done",
}
ROLLED_BACK = {
    "reserve_inventory:F": "done",
    "charge_payment:F": "unknown",
    "charge_payment:C": "done",
    "reserve_inventory:C": "done",
}


@pytest.fixture
def _app(tmp_path: Path) -> None:
    """An app `shop` with nothing but the example."""
    app = tmp_path / "shop"
    app.mkdir()
    (app / "__init__.py").touch()
    (app / "sagas.py").write_bytes(EXAMPLE.read_bytes())


@pytest.mark.usefixtures("_app")
def test_it_is_durable_as_it_stands(parts: Parts) -> None:
    parts.start(
        TEST_APPS="tests.e2e.project.enqueuing,shop",
        BROKER_TOPICS=f"orders.commands,orders.events,{TOPIC}",
        SAGA_TOPICS=f"orders.commands,{TOPIC}",
        SAGA_LEASE="5",  # shorter, and a slow machine takes sagas over from workers that live
        **HARDLY_ANY_BACKOFF,
    )
    amounts = {f"ORD-{number}": LIMIT + 500 if number % 4 == 0 else 10 for number in range(30)}
    orders = [{"order_id": order_id, "amount": amount} for order_id, amount in amounts.items()]
    parts.enqueue(TOPIC, "order_created", *orders, key="order_id")

    held: list[int] = []

    def ended() -> int:
        [(now_held,)] = parts.query(HELD)
        held.append(now_held)
        return count(parts, ENDED)

    [consumer] = parts.start_consumers(1)
    until(ended, reaches=3, timeout=30)
    until(lambda: ended() and count(parts, IN_THE_MIDDLE), timeout=10)
    consumer.signal(signal.SIGKILL)
    assert count(parts, ENDED) < len(orders)
    parts.start_consumers(2)
    until(ended, reaches=len(orders), timeout=60)

    wanted = {
        key: "rolled_back" if amount > LIMIT else "completed" for key, amount in amounts.items()
    }
    assert dict(parts.query(STATUSES)) == wanted
    journals = journals_of(parts)
    for key, status in wanted.items():
        assert journals[key] == (COMPLETED if status == "completed" else ROLLED_BACK), key
    assert parts.query(WORKERS), "another worker went on with what the killed one had begun"
    assert max(held) == MAX_CONCURRENT
    assert most_at_a_time(parts.query(CALLS)) <= MAX_CONCURRENT
    # The example declines by an error that nobody expects, so the last attempt's traceback is told.
    lines = parts.output.splitlines()
    before = [lines[number - 1] for number, line in enumerate(lines) if "Traceback" in line]
    assert all(GIVEN_UP in line for line in before), before


def count(parts: Parts, query: str) -> int:
    [(number,)] = parts.query(query)
    return int(number)


def journals_of(parts: Parts) -> dict[str, dict[str, str]]:
    """By order, the status of each of its steps, in the order in which they began."""
    journals: dict[str, dict[str, str]] = {}
    for key, step, status, _ in parts.query(STEPS):
        journals.setdefault(key, {})[step] = status
    return journals


def most_at_a_time(calls: Sequence[tuple[float, float]]) -> int:
    """How many of these stretches of time overlap at most."""
    changes = sorted([(began, 1) for began, _ in calls] + [(ended, -1) for _, ended in calls])
    running = most = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most
