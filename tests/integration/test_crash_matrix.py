"""Every crash point of an order, on PostgreSQL, with real processes: killed by SIGKILL, or stopped
and woken too late, or met by a cancel. Each order must end as if nothing had happened, with each
effect exactly once. `pytest -s` shows the matrices."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from uuid import UUID

import pytest
from django.conf import settings
from django.db.models import Sum
from django.test import Client
from django.utils import timezone

from brokers import Record, broker_from_url
from orders.audit import audit_orders
from orders.messages import COMMANDS
from orders.models import Order, SimulatedCharge
from orders.services import receive_stock
from outbox.models import OutboxMessage
from sagas.crash_points import Point
from sagas.errors import CancelRefused
from sagas.inbox import accepting
from sagas.journal.cancelling import request_cancel
from sagas.models import InboxMessage, Saga, SagaStep
from sagas.testing import Moment, Worker, Workers, saga_workers
from sagas.testing.walk import Cell, CrashMatrix, pause, resume, walk
from sagas.testing.worker import Options
from tests.integration import crash_processes
from tests.integration.crash_orders import (
    FULFILLED,
    QUANTITY,
    REFUNDED,
    STOCK,
    UNDONE,
    Effects,
    Orders,
    assert_cancelled,
    command_of,
)
from tests.unit.waiting import until

__all__ = ["saga_workers"]

pytestmark = [pytest.mark.postgres, pytest.mark.usefixtures("postgres")]

OUTSIDE: Options = {"imports": ["tests.integration.crash_gateways"], "backoff": 0.001}
STALE: Options = {**OUTSIDE, "concurrency": 1}

# How the outside behaves is in an order's id: tests/integration/crash_gateways.py.
FULFILLED_ORDERS = Orders("ORD")
DECLINED_ORDERS = Orders("BIG", amount="1500.00")
LOST_ORDERS = Orders("LOST")
UNDELIVERABLE_ORDERS = Orders("UNDELIVERABLE")
AWAY_ORDERS = Orders("AWAY")

DECLINED = UNDONE | {
    "reason": "payment declined: 1500.00 exceeds the limit of 1000",
    "ledger": [],
    "payments": [],
}
LOST = REFUNDED | {
    "reason": "PaymentUnavailable: the answer was lost",
    "payments": [],  # our books never had the charge
}
UNDELIVERABLE = REFUNDED | {"reason": "nobody delivers there"}


@pytest.fixture(scope="module")
def idle_in_transaction() -> int:
    """Locks of a worker that is stopped within a step are soon free."""
    return 2


@pytest.fixture(autouse=True)
def _audited(postgres: None) -> Iterator[None]:
    """Whatever was killed, the books agree."""
    began = time.monotonic()
    yield
    print(f"took {time.monotonic() - began:.1f} s")  # noqa: T201 - for whoever watches
    audit = audit_orders(now=timezone.now(), max_age=timedelta(hours=1))
    assert audit.contradictions == []


def show(matrix: CrashMatrix, request: pytest.FixtureRequest) -> None:
    print(f"\n{request.node.callspec.id}\n{matrix}")  # noqa: T201 - what it is for


def moments_of(workers: Workers, orders: Orders) -> list[Moment]:
    """The moments of an undisturbed run, which is that of order number 0."""
    return list(workers.run(orders.begin(0), **OUTSIDE).reached)


def hold(workers: Workers, moment: Moment, options: Options) -> Worker:
    return workers.hold(moment.point, moment.where, nth=moment.nth, **options)


def reached_in(matrix: CrashMatrix) -> set[str]:
    return {f"{cell.moment.point} {cell.moment.where}".rstrip() for cell in matrix.cells}


def effects_and_attempts(orders: Orders, n: int) -> tuple[Effects, int]:
    """The order's effects, and how many attempts its journal counts."""
    attempts = SagaStep.objects.filter(saga__key=orders.id_of(n)).aggregate(Sum("attempt"))
    return orders.effects(n), attempts["attempt__sum"] or 0


@pytest.mark.parametrize(
    ("orders", "expected"),
    [
        pytest.param(FULFILLED_ORDERS, FULFILLED, id="fulfilled"),
        pytest.param(DECLINED_ORDERS, DECLINED, id="declined"),
        pytest.param(LOST_ORDERS, LOST, id="every answer of the payment is lost"),
        pytest.param(UNDELIVERABLE_ORDERS, UNDELIVERABLE, id="refused by the pivot"),
        pytest.param(AWAY_ORDERS, FULFILLED, id="charged at the second attempt"),
    ],
)
def test_killed_at_each_point(
    saga_workers: Workers, orders: Orders, expected: Effects, request: pytest.FixtureRequest
) -> None:
    matrix = walk(saga_workers, begin=orders.begin, effects=orders.effects, **OUTSIDE)
    show(matrix, request)
    assert orders.effects(0) == expected
    assert reached_in(matrix) == EXPECTED_POINTS[orders.prefix]


_FORWARD = {
    "claimed",
    "before_terminal_commit",
    "after_terminal_commit",
    "inside_local_step reserve_inventory:F",
    "step_done reserve_inventory:F",
    "started charge_payment:F",
}
_CHARGED = {"called charge_payment:F", "step_done charge_payment:F"}
_SHIPPED = {"inside_local_step ship_order:F", "step_done ship_order:F"}
_RELEASED = {"inside_local_step reserve_inventory:C", "step_done reserve_inventory:C"}
_REFUNDED = {"started charge_payment:C", "called charge_payment:C", "step_done charge_payment:C"}
EXPECTED_POINTS = {
    "ORD": _FORWARD | _CHARGED | _SHIPPED,
    "BIG": _FORWARD | _RELEASED | {"failure_decided charge_payment:F"},
    "LOST": _FORWARD
    | _REFUNDED
    | _RELEASED
    | {"attempt_failed charge_payment:F", "failure_decided charge_payment:F"},
    "UNDELIVERABLE": _FORWARD | _CHARGED | _REFUNDED | _RELEASED | {"failure_decided ship_order:F"},
    "AWAY": _FORWARD | _CHARGED | _SHIPPED | {"attempt_failed charge_payment:F"},
}


@pytest.mark.parametrize(
    ("orders", "expected"),
    [
        pytest.param(FULFILLED_ORDERS, FULFILLED, id="fulfilled"),
        pytest.param(UNDELIVERABLE_ORDERS, UNDELIVERABLE, id="undone"),
    ],
)
def test_woken_after_another_has_finished(
    saga_workers: Workers, orders: Orders, expected: Effects, request: pytest.FixtureRequest
) -> None:
    """Workers frozen at each point, past their leases: whatever they do when they wake up, the
    journal refuses, and nothing changes."""
    held: list[tuple[Moment, UUID, Worker]] = []
    for n, moment in enumerate(moments_of(saga_workers, orders), 1):
        saga = orders.begin(n)
        held.append((moment, saga, hold(saga_workers, moment, STALE)))
        pause([saga])
    sagas = [saga for _, saga, _ in held]
    resume(sagas)
    saga_workers.run(*sagas, **OUTSIDE)
    numbers = range(1, len(held) + 1)
    before = [effects_and_attempts(orders, n) for n in numbers]
    for _, _, stale in held:
        stale.resume()
    for _, _, stale in held:
        assert stale.stop() == 0, stale.error

    after = [effects_and_attempts(orders, n) for n in numbers]
    cells = [
        Cell(moment, saga, "" if now == was and now[0] == expected else f"{now}, was {was}")
        for (moment, saga, _), was, now in zip(held, before, after, strict=True)
    ]
    matrix = CrashMatrix(tuple(cells))
    show(matrix, request)
    assert matrix.differences == []


def test_stopped_before_its_call_and_woken_after_the_refund(saga_workers: Workers) -> None:
    saga = FULFILLED_ORDERS.begin(1)
    stale = saga_workers.hold(Point.STARTED, "charge_payment:F", **STALE)
    request_cancel(saga, who="a test", reason="by the customer")
    saga_workers.run(saga, **OUTSIDE)
    before = FULFILLED_ORDERS.effects(1)
    assert_cancelled(before)
    assert SimulatedCharge.objects.get().status == "closed"

    stale.resume()
    assert stale.stop() == 0
    assert Moment(Point.CALLED, "charge_payment:F") not in stale.reached
    assert FULFILLED_ORDERS.effects(1) == before
    assert SimulatedCharge.objects.get().status == "closed"


def cancel_at_each_point(
    workers: Workers, orders: Orders, then: str
) -> list[tuple[Moment, bool, Effects]]:
    """Let a cancel come while a worker is frozen at a point; then that worker goes on, or it is
    killed and another one does. Returns whether the cancel was accepted, and how it ended."""
    moments = moments_of(workers, orders)
    accepted: list[bool] = []
    sagas: list[UUID] = []
    for n, moment in enumerate(moments, 1):
        saga = orders.begin(n)
        sagas.append(saga)
        held = hold(workers, moment, OUTSIDE)
        accepted.append(cancel(saga))
        if then == "goes on":
            held.resume()
            until(lambda: has_ended(saga))  # noqa: B023 - called at once
            assert held.stop() == 0, held.error
        else:
            held.kill()
            pause(sagas)
    resume(sagas)
    workers.run(*sagas, **OUTSIDE)
    ends = [orders.effects(n) for n in range(1, len(sagas) + 1)]
    for moment, yes, end in zip(moments, accepted, ends, strict=True):
        said = "accepted" if yes else "refused"
        print(f"{moment}: cancel {said}, then {end['order']}")  # noqa: T201 - what it is for
    return list(zip(moments, accepted, ends, strict=True))


def cancel(saga: UUID) -> bool:
    try:
        request_cancel(saga, who="a test", reason="by the customer")
    except CancelRefused:
        return False
    return True


def has_ended(saga: UUID) -> bool:
    return Saga.objects.filter(id=saga, finished_at__isnull=False).exists()


@pytest.mark.parametrize("then", ["goes on", "is killed"])
def test_cancelled_at_each_point(saga_workers: Workers, then: str) -> None:
    """Up to the pivot's commit, which is the end's too, everything is undone; then the cancel comes
    too late."""
    results = cancel_at_each_point(saga_workers, FULFILLED_ORDERS, then)
    for _, accepted, end in results:
        if accepted:
            assert_cancelled(end)
        else:
            assert end == FULFILLED
    # The charge's answer commits with the shipment.
    assert {str(moment) for moment, accepted, _ in results if not accepted} == {
        "step_done charge_payment:F",
        "step_done ship_order:F",
        "after_terminal_commit",
    }


@pytest.mark.parametrize("then", ["goes on", "is killed"])
def test_cancelled_while_it_is_undone(saga_workers: Workers, then: str) -> None:
    """Once the order is decided against, a cancel changes nothing; until then it wins."""
    results = cancel_at_each_point(saga_workers, UNDELIVERABLE_ORDERS, then)
    statuses = [end["order"] for _, _, end in results]
    decided = [moment.point for moment, _, _ in results].index(Point.FAILURE_DECIDED)
    # A worker that goes on does the step that comes next first, and that one says no.
    sure = decided if then == "is killed" else decided - 1
    assert statuses[:sure] == ["cancelled"] * sure
    assert set(statuses[decided:]) == {"rejected"}
    for _, _, end in results:
        if end["order"] == "cancelled":
            assert_cancelled(end)
        else:
            assert end == UNDELIVERABLE


class TestTheRequest:
    @pytest.mark.parametrize(("when", "stored", "answer"), [("before", 0, 202), ("after", 1, 200)])
    def test_killed_at_its_commit_and_sent_again(
        self,
        saga_workers: Workers,
        when: str,
        stored: int,
        answer: int,
    ) -> None:
        settings.SECRET_KEY = "only for tests"  # requests want one
        receive_stock(product_id="P-ORD-1", name="A book", quantity=STOCK)
        body = {
            "order_id": "ORD-1",
            "user_id": "U-1",
            "items": [{"id": "P-ORD-1", "name": "A book", "quantity": QUANTITY}],
            "amount": 99.99,
        }
        environment = {"SECRET_KEY": "only for tests"}
        crash_processes.assert_killed(
            crash_processes.start(crash_processes.post_order, body, when, **environment)
        )
        assert Order.objects.count() == OutboxMessage.objects.count() == stored

        sent = Client().post("/orders/", body, content_type="application/json")
        assert sent.status_code == answer
        assert Order.objects.count() == OutboxMessage.objects.count() == 1
        order = Order.objects.get()
        accepting.accept([command_of(order)], consumer="sagas")
        saga_workers.run(order.saga_id)
        assert FULFILLED_ORDERS.effects(1) == FULFILLED


@pytest.fixture
def broker_url(kafka_server_url: str, topic_name: Callable[[str], str]) -> str:
    separator = "&" if "?" in kafka_server_url else "?"
    return f"{kafka_server_url}{separator}prefix={topic_name('')}"


def published(broker_url: str, *, count: int) -> list[Record]:
    """The first records of the commands' topic."""
    records: list[Record] = []

    def has_all() -> bool:
        records.extend(subscription.receive(timeout=0.2, limit=10))
        return len(records) >= count

    with closing(broker_from_url(broker_url).subscribe([COMMANDS], group="audit")) as subscription:
        until(has_all)
    return records


@pytest.mark.kafka
# kafka-python leaves the sockets of refused connections to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
class TestOnTheWay:
    def test_a_relay_killed_between_sending_and_deleting(
        self, saga_workers: Workers, broker_url: str
    ) -> None:
        """The message goes out twice, under one id; the inbox takes it once."""
        order = FULFILLED_ORDERS.place(1)
        [message] = OutboxMessage.objects.all()
        changed = crash_processes.broker_setting(broker_url)
        crash_processes.assert_killed(crash_processes.start(crash_processes.relay, **changed))
        assert OutboxMessage.objects.count() == 1
        again = crash_processes.start(crash_processes.drain, **changed)
        again.join(crash_processes.TIMEOUT)
        assert again.exitcode == 0
        assert not OutboxMessage.objects.exists()

        records = published(broker_url, count=2)
        assert [dict(record.headers)["ce_id"] for record in records] == [
            str(message.message_id).encode()
        ] * 2
        for record in records:
            accepting.accept([record], consumer="sagas")
        saga_workers.run(order.saga_id)
        without_command = {"messages": ["order.fulfilled"], "distinct messages": 1}
        assert FULFILLED_ORDERS.effects(1) == FULFILLED | without_command
        assert InboxMessage.objects.count() == 1

    @pytest.mark.parametrize(
        ("point", "stored"), [(Point.BEFORE_INBOX_COMMIT, 0), (Point.AFTER_INBOX_COMMIT, 1)]
    )
    def test_a_consumer_killed_at_its_inbox(
        self, saga_workers: Workers, broker_url: str, point: Point, stored: int
    ) -> None:
        """Killed before the broker knows: the command comes again, and is taken once."""
        order = FULFILLED_ORDERS.place(1)
        changed = crash_processes.broker_setting(broker_url)
        relayed = crash_processes.start(crash_processes.drain, **changed)
        relayed.join(crash_processes.TIMEOUT)
        crash_processes.assert_killed(
            crash_processes.start(crash_processes.consume, point, signal.SIGKILL, **changed)
        )
        assert InboxMessage.objects.count() == Saga.objects.count() == stored

        again = crash_processes.start(
            crash_processes.consume, Point.AFTER_INBOX_COMMIT, signal.SIGTERM, **changed
        )
        again.join(crash_processes.TIMEOUT)
        assert again.exitcode == 0, "the command did not come again"
        saga_workers.run(order.saga_id)
        without_command = {"messages": ["order.fulfilled"], "distinct messages": 1}
        assert FULFILLED_ORDERS.effects(1) == FULFILLED | without_command
        assert InboxMessage.objects.count() == Saga.objects.count() == 1
