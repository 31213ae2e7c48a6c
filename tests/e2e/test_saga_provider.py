"""A payment provider that loses every answer, keeps failing, or is to be asked again in an hour."""

from collections.abc import Iterator

import pytest

from tests import seed
from tests.e2e.project.parts import HARDLY_ANY_BACKOFF, Parts
from tests.e2e.service import until
from tests.stripe_server import API_KEY, Rule
from tests.stripe_server.process import StripeProcess, running
from tests.stripe_server.rules import Misdeed

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

ATTEMPTS = "SELECT attempt FROM sagas_step WHERE step = 'charge_payment' AND kind = 'F'"
WAITS = """
    SELECT worker, next_run_at - now() > interval '50 minutes' FROM sagas_saga
    WHERE status = 'waiting'
"""


@pytest.fixture
def stripe() -> Iterator[StripeProcess]:
    with running() as server:
        yield server


def start(parts: Parts, stripe: StripeProcess, *consumer: str, **env: str) -> None:
    parts.start(
        PAYMENT_GATEWAY_URL="stripe://",
        STRIPE_API_BASE=stripe.url,
        STRIPE_API_KEY=API_KEY,
        **(HARDLY_ANY_BACKOFF | env),
    )
    parts.start_consumers(1, *consumer)


@pytest.mark.parametrize(
    ("do", "effects"),
    [
        pytest.param("lose", ["created", "charged", "refunded"], id="charged"),
        pytest.param("drop", ["created", "cancelled"], id="not-charged"),
    ],
)
def test_a_payment_that_is_never_answered_is_undone(
    parts: Parts, stripe: StripeProcess, do: Misdeed, effects: list[str]
) -> None:
    stripe.tell(Rule("confirm", do))
    start(parts, stripe)
    parts.post(seed.ORDER)
    until(parts.ended_orders, timeout=30)

    assert parts.order("ORD-001")["status"] == "rejected"
    assert parts.query(ATTEMPTS) == [(9,)]
    assert stripe.effects("ORD-001") == effects
    assert (
        parts.query("SELECT reserved, shipped FROM orders_product WHERE reserved + shipped > 0")
        == []
    )
    parts.assert_audit_is_clean()


def test_a_refund_that_keeps_failing_waits_for_a_person(
    parts: Parts, stripe: StripeProcess
) -> None:
    stripe.tell(Rule("confirm", "lose"), Rule("refund", "fail"))
    start(parts, stripe)
    parts.post(seed.ORDER)
    until(parts.ended_orders, timeout=30)
    order = parts.order("ORD-001")
    assert order["status"] == "attention"
    assert "undoing charge_payment keeps failing" in order["reason"]
    assert stripe.effects("ORD-001") == ["created", "charged"]

    # It parks again as long as the provider is away.
    refunds = stripe.ledger()["calls"]["refund"]
    retry(parts)
    until(lambda: stripe.ledger()["calls"]["refund"], reaches=2 * refunds, timeout=30)
    until(lambda: parts.query("SELECT 1 FROM sagas_saga WHERE status = 'parked'"), timeout=10)

    stripe.tell()
    retry(parts)
    until(lambda: parts.order("ORD-001")["status"] == "rejected", timeout=30)
    assert stripe.effects("ORD-001") == ["created", "charged", "refunded"]
    parts.assert_audit_is_clean()


def retry(parts: Parts) -> None:
    done = parts.manage("sagas", "retry", "ORD-001", "--why", "the provider is back")
    assert done.returncode == 0, done.stderr


def test_waiting_for_an_hour_holds_up_no_other(parts: Parts, stripe: StripeProcess) -> None:
    stripe.tell(Rule("confirm", "fail", times=1))
    hours = {"SAGA_FIRST_BACKOFF": "7200", "SAGA_LONGEST_BACKOFF": "7200"}  # from one hour on
    start(parts, stripe, "--concurrency", "1", **hours)
    parts.post(seed.order(order_id="WAITS"))
    until(lambda: parts.query(WAITS) == [("", True)], timeout=20)

    parts.place("--count", "20")
    assert parts.statuses() == {"processing": 1, "fulfilled": 20}
    assert parts.query(WAITS) == [("", True)]
    parts.assert_audit_is_clean()

    parts.query("UPDATE sagas_saga SET next_run_at = now() WHERE status = 'waiting'")
    until(lambda: parts.order("WAITS")["status"] == "fulfilled", timeout=20)
    assert stripe.effects("WAITS") == ["created", "charged"]
    parts.assert_audit_is_clean()
