"""Workers that stall or die with their sagas, and those that take the sagas over."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests import seed
from tests.e2e.full_service import running_processes
from tests.e2e.project.parts import HARDLY_ANY_BACKOFF, Consumer, Parts
from tests.e2e.service import until
from tests.stripe_server import API_KEY, Rule
from tests.stripe_server.process import StripeProcess, running

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

COUNT = 12
BESIDE_IT = 30
EVERYTHING = (
    "SELECT order_id, status, reason, updated_at FROM orders_order ORDER BY id",
    "SELECT key, status, epoch, worker, finished_at FROM sagas_saga ORDER BY key",
    "SELECT saga_id, step, kind, status, attempt, finished_at FROM sagas_step ORDER BY id",
    "SELECT * FROM sagas_attempt ORDER BY id",
    "SELECT * FROM orders_payment ORDER BY id",
    "SELECT * FROM orders_shipment ORDER BY id",
    "SELECT * FROM orders_product ORDER BY id",
)
CALLS = "SELECT 1 FROM sagas_step WHERE step = 'charge_payment' AND status = 'started'"
ONLY_THE_POISON = [("ARSENIC", "3 workers in a row died or stalled with it and got no further")]
PARKED = "SELECT key, park_reason FROM sagas_saga WHERE status = 'parked'"


@pytest.fixture
def stripe() -> Iterator[StripeProcess]:
    with running() as server:
        yield server


def test_a_worker_that_wakes_up_changes_nothing(parts: Parts, stripe: StripeProcess) -> None:
    stripe.tell(Rule("confirm", "late", seconds=3))
    parts.start(
        PAYMENT_GATEWAY_URL="stripe://",
        STRIPE_API_BASE=stripe.url,
        STRIPE_API_KEY=API_KEY,
        SAGA_LEASE="1",
    )
    [sleeper] = parts.start_consumers(1)
    for number in range(COUNT):
        amount = 1500 if number % 3 == 0 else 10
        parts.post(seed.order(order_id=f"ORD-{number}", amount=amount))
    # Each is paying: inside a local step it would also keep rows locked until its timeout.
    until(lambda: len(parts.query(CALLS)), reaches=COUNT, timeout=30)
    sleeper.signal(signal.SIGSTOP)
    assert parts.ended_orders() == set()

    stripe.tell()
    parts.start_consumers(1)
    until(lambda: len(parts.ended_orders()), reaches=COUNT, timeout=60)
    assert parts.statuses() == {"fulfilled": COUNT * 2 // 3, "rejected": COUNT // 3}
    before = everything(parts, stripe)

    sleeper.signal(signal.SIGCONT)
    until(lambda: lost(parts), reaches=COUNT, timeout=30)
    assert everything(parts, stripe) == before
    parts.place("--count", "20")
    parts.assert_nothing_was_done_twice()
    parts.assert_audit_is_clean()


def lost(parts: Parts) -> int:
    """How many sagas a worker gave up because another had them."""
    return parts.output.count("was taken over by another worker")


def everything(parts: Parts, stripe: StripeProcess) -> list[list[Any]]:
    return [*(parts.query(query) for query in EVERYTHING), stripe.ledger()["effects"]]


def test_a_step_that_kills_its_worker_parks_its_saga(parts: Parts) -> None:
    start_for_poison(parts)
    consumers = parts.start_consumers(2)
    parts.enqueue("orders.commands", "poison.take", {"name": "ARSENIC"}, key="name")
    with parts.placing("--count", "60", "--rate", "10"):
        deaths = replace_until_parked(parts, consumers)

    assert parts.query(PARKED) == ONLY_THE_POISON
    assert deaths == 3
    assert parts.statuses() == {"fulfilled": 60}
    parts.assert_nothing_was_done_twice()
    parts.assert_audit_is_clean()


def test_it_takes_no_other_with_it(parts: Parts) -> None:
    start_for_poison(parts, PAYMENT_GATEWAY_URL="simulated://?delay=0.5")
    parts.enqueue("orders.commands", "poison.take", {"name": "ARSENIC"}, key="name")
    for number in range(BESIDE_IT):
        parts.post(seed.order(order_id=f"ORD-{number}"))
    # Nobody waits until they are ready: the first may die of the poison before it has said so.
    consumers = [parts.start_consumer() for _ in range(2)]
    replace_until_parked(parts, consumers)
    until(lambda: len(parts.ended_orders()), reaches=BESIDE_IT, timeout=60)

    assert parts.query(PARKED) == ONLY_THE_POISON
    assert parts.statuses() == {"fulfilled": BESIDE_IT}


def start_for_poison(parts: Parts, **env: str) -> None:
    apps = "tests.e2e.project.enqueuing,tests.e2e.project.poison"
    env |= HARDLY_ANY_BACKOFF
    parts.start(TEST_APPS=apps, SAGA_LEASE="2", SAGA_MAX_TAKEOVERS="2", **env)


def replace_until_parked(parts: Parts, consumers: list[Consumer]) -> int:
    """Start another for each consumer that dies; returns how many have died."""
    deaths = 0

    def is_parked() -> bool:
        nonlocal deaths
        deaths += replace_the_dead(parts, consumers)
        return ONLY_THE_POISON[0] in parts.query(PARKED)

    until(is_parked, timeout=60)
    return deaths


def replace_the_dead(parts: Parts, consumers: list[Consumer]) -> int:
    """How many there were."""
    alive = {process.pid for process in running_processes()}
    dead = [number for number, each in enumerate(consumers) if each.pid not in alive]
    for number in dead:
        consumers[number] = parts.start_consumer()
    return len(dead)
