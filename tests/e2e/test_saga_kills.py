"""Consumers killed every half second, and a payment provider that loses answers."""

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.e2e.project.parts import Parts
from tests.e2e.service import until
from tests.stripe_server import API_KEY, Rule
from tests.stripe_server.process import StripeProcess, running

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

CONSUMERS = 3
KILL_EVERY = 0.5  # seconds
DECLINED = 1 / 3
LOST = Rule("*", "lose", share=0.1)
SLOW = Rule("confirm", "late", seconds=0.3)

UNDER_WAY = """
    SELECT count(*) FROM sagas_saga WHERE finished_at IS NULL AND status <> 'parked'
"""
TAKEN_OVER = """
    SELECT count(*) FROM (
        SELECT saga_id FROM (
            SELECT saga_id, worker FROM sagas_step UNION SELECT saga_id, worker FROM sagas_attempt
        ) AS attempts GROUP BY saga_id HAVING count(*) > 1
    ) taken_over
"""
FULFILLED = "SELECT order_id, (amount * 100)::int FROM orders_order WHERE status = 'fulfilled'"


@pytest.fixture
def stripe() -> Iterator[StripeProcess]:
    with running() as server:
        yield server


def test_no_order_is_lost_charged_twice_or_rejected(parts: Parts, stripe: StripeProcess) -> None:
    killed = kill_until_done(parts, stripe, count=100)
    assert killed >= 5


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_of_two_thousand_none_is_lost_charged_twice_or_rejected(
    parts: Parts, stripe: StripeProcess
) -> None:
    killed = kill_until_done(parts, stripe, count=2_000)
    assert killed >= 50


def kill_until_done(parts: Parts, stripe: StripeProcess, *, count: int) -> int:
    """Returns how many consumers were killed."""
    stripe.tell(LOST, SLOW)
    parts.start(
        PAYMENT_GATEWAY_URL="stripe://",
        STRIPE_API_BASE=stripe.url,
        STRIPE_API_KEY=API_KEY,
        SAGA_LEASE="1",
    )
    consumers = parts.start_consumers(CONSUMERS)
    chance = random.Random(2)
    killed = 0
    share = ("--declined", str(DECLINED))
    with parts.placing("--count", str(count), *share, "--patience", "900") as placing:
        until(lambda: parts.query(UNDER_WAY) != [(0,)], timeout=60)
        while len(parts.ended_orders()) < count:
            assert placing.poll() is None, placing.stdout and placing.stdout.read()
            time.sleep(KILL_EVERY)
            if parts.query(UNDER_WAY) == [(0,)]:
                # Commands wait in Kafka. It hands a dead member's partitions on when its session
                # has run out, and that wants a while without another death.
                continue
            victim = chance.randrange(CONSUMERS)
            consumers[victim].signal(signal.SIGKILL)
            consumers[victim] = parts.start_consumer()
            killed += 1

    declined = int(count * DECLINED)
    assert parts.statuses() == {"fulfilled": count - declined, "rejected": declined}
    assert parts.query(TAKEN_OVER) >= [(killed // 5,)]
    assert charged_orders(stripe) == dict(parts.query(FULFILLED))
    assert "Traceback" not in parts.output
    parts.assert_nothing_was_done_twice()
    parts.assert_audit_is_clean()
    return killed


def charged_orders(stripe: StripeProcess) -> dict[str, int]:
    """What the provider has taken for each order, in cents; that it took nothing twice."""
    ledger = stripe.ledger()
    charges = Counter(each["order"] for each in ledger["effects"] if each["effect"] == "charged")
    assert max(charges.values()) == 1
    taken: Counter[str] = Counter()
    for intent in ledger["intents"]:
        taken[intent["order"]] += intent["charged"] - intent["refunded"]
    return {order_id: amount for order_id, amount in taken.items() if amount}
