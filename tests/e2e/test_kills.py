"""Relay and consumers killed and stopped again and again while orders come in."""

import signal
from itertools import cycle

import pytest

from tests.e2e.full_service import FullService, Process
from tests.e2e.service import until

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

KILL_EVERY = 15  # orders
DECLINED = 0.34


def test_no_order_is_lost_or_done_twice(full_service: FullService) -> None:
    kill_while_orders_come_in(full_service, count=150)


@pytest.mark.soak
def test_none_of_a_thousand_is_lost_or_done_twice(full_service: FullService) -> None:
    kill_while_orders_come_in(full_service, count=1_000)


def kill_while_orders_come_in(service: FullService, *, count: int) -> None:
    # Payments take a while, so that many sagas are under way at any time.
    service.start(PAYMENT_GATEWAY_URL="simulated://?delay=0.05")
    arguments = ("--rate", "15", "--declined", str(DECLINED), "--retry-for", "300")
    with service.placing("--count", str(count), "--patience", "300", *arguments):
        killed = kill_until_placed(service, count=count)

    declined = int(count * DECLINED)
    assert service.statuses() == {"fulfilled": count - declined, "rejected": declined}
    assert killed >= count / KILL_EVERY / 4  # the supervisor pauses longer and longer
    assert "Traceback" not in service.output
    service.assert_nothing_was_done_twice()
    shipped = service.query("SELECT count(*) FROM orders_shipment")
    charged = service.query("SELECT count(*) FROM orders_simulatedcharge WHERE status = 'charged'")
    assert shipped == charged == [(count - declined,)]
    service.assert_audit_is_clean()


def kill_until_placed(service: FullService, *, count: int) -> int:
    """SIGKILL or SIGTERM to relay and consumers in turn, every few orders; returns how often."""
    killed: set[int] = set()
    turns = cycle(
        (command, number)
        for command in ("run_outbox_relay", "run_saga_consumer", "run_saga_consumer")
        for number in (signal.SIGKILL, signal.SIGTERM)
    )
    for placed, (command, number) in zip(range(KILL_EVERY, count, KILL_EVERY), turns, strict=False):
        until(lambda: orders_placed(service), reaches=placed, timeout=60)
        for victim in longest_running(service, command):
            victim.signal(number)
            killed.add(victim.pid)
    return len(killed)


def orders_placed(service: FullService) -> int:
    return sum(service.statuses().values())


def longest_running(service: FullService, command: str) -> list[Process]:
    """One process, or none while the supervisor pauses."""
    return sorted(service.children(command), key=lambda process: process.pid)[:1]
