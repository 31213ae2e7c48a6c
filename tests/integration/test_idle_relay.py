"""What a relay asks of PostgreSQL while there is nothing to do, counted by libpq itself."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from django.db import connection, transaction

from brokers.memory import MemoryBroker
from outbox import enqueue
from outbox.models import OutboxLane, OutboxMessage, OutboxRelay
from relay import segments
from relay.assembly import assemble_relay
from relay.lanes import LeasedLanes
from relay.loop import Relay
from relay.wake_ups import WakeUps

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("postgres"),
]

MOST_A_SECOND = 2
SECONDS = 300.0


class Idling(WakeUps):
    """What a relay waits for: nothing comes, and its clock passes the pause at once.

    `happens`: called meanwhile; says whether the relay is woken."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.ends = self.now + SECONDS
        self.stop = threading.Event()
        self.happens: Callable[[], bool] = lambda: False

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.now += timeout
        if self.now >= self.ends:
            self.stop.set()
        return self.happens()


class Requests:
    """Counts the round trips of Django's connection, as libpq traces them: BEGIN and COMMIT too."""

    def __init__(self, path: Path) -> None:
        connection.ensure_connection()
        self._path = path
        self._connection = connection.connection.pgconn
        self._file = path.open("wb")
        self._connection.trace(self._file.fileno())

    def close(self) -> None:
        self._connection.untrace()
        self._file.close()

    @property
    def text(self) -> str:
        return self._path.read_text(errors="replace")

    def __len__(self) -> int:
        lines = self.text.splitlines()
        return sum("\tQuery\t" in line or "\tSync" in line for line in lines)


@pytest.fixture
def requests(tmp_path: Path) -> Iterator[Requests]:
    counting = Requests(tmp_path / "trace")
    yield counting
    counting.close()


@pytest.fixture
def idling() -> Idling:
    return Idling()


@pytest.fixture
def relay(idling: Idling) -> Relay:
    OutboxLane.objects.all().delete()
    OutboxRelay.objects.all().delete()
    return assemble_relay(MemoryBroker(), source="/tests", woken=idling, clock=lambda: idling.now)


def put() -> None:
    with transaction.atomic():
        enqueue(topic="shop.events", key="K", type="shop.sold", payload=1)


def test_the_count_sees_every_round_trip(requests: Requests) -> None:
    before = len(requests)
    with transaction.atomic():
        OutboxMessage.objects.exists()
    assert len(requests) - before == 3


def test_with_nothing_to_do(relay: Relay, idling: Idling, requests: Requests) -> None:
    relay.run(idling.stop)
    assert 1.0 * SECONDS < len(requests) <= MOST_A_SECOND * SECONDS


def test_with_segments_that_somebody_keeps_from_being_emptied(
    relay: Relay,
    idling: Idling,
    requests: Requests,
    other: "psycopg.Connection[tuple[object, ...]]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put()
    OutboxMessage.objects.all().delete()
    other.execute("SELECT count(*) FROM outbox_message")
    segments.make_current("outbox_message_3")
    relay._cycle.segments.note_deletes()
    before = len(requests)
    relay.run(idling.stop)
    assert "LOCK TABLE" in requests.text
    assert len(requests) - before <= MOST_A_SECOND * SECONDS


def test_without_lanes(relay: Relay, idling: Idling, requests: Requests) -> None:
    LeasedLanes("another").tend(busy=())
    relay.run(idling.stop)
    assert len(requests) <= MOST_A_SECOND * SECONDS


def test_woken_it_reads_at_once(relay: Relay, idling: Idling) -> None:
    seen: list[int] = []

    def happen() -> bool:
        seen.append(relay.published)
        if len(seen) == 30:
            put()
        return len(seen) == 30

    idling.happens = happen
    relay.run(idling.stop)
    assert seen[29:31] == [0, 1]


@pytest.mark.parametrize("are_heard", [True, False])
def test_what_is_committed_while_messages_are_in_flight_is_read_where_it_is_heard_of(
    are_heard: bool,  # noqa: FBT001
    relay: Relay,
    idling: Idling,
    requests: Requests,
) -> None:
    """Between its read and the last delete there is nothing to read, unless somebody says so."""
    idling.are_heard = are_heard
    for number in range(30):
        put()
        relay._cycle.run(wait=0.0, reads=True)
        put()
        if number % 2:
            relay._cycle.run(wait=0.0, reads=not are_heard)
    idling.happens = lambda: relay.published < 60
    relay.run(idling.stop)
    assert relay.published == 60


def test_a_relay_that_hears_of_commits_does_not_look_in_between(
    relay: Relay, idling: Idling, requests: Requests
) -> None:
    idling.are_heard = True
    woken: list[int] = []

    def happen() -> bool:
        woken.append(1)
        if len(woken) <= 100:
            put()
        else:
            idling.stop.set()
        return True

    idling.happens = happen
    relay.run(idling.stop)
    assert relay.published == 100
    # One for each message, and those of the beginning and the end.
    assert requests.text.count("CROSS JOIN LATERAL") <= 105


def test_a_lane_with_more_than_a_read_takes_is_read_on_without_a_wake_up(
    relay: Relay, idling: Idling
) -> None:
    """A read takes a part of each lane; what is left wakes nobody."""
    idling.are_heard = True
    count = 3 * (relay._cycle.reader._lane_limit) + 7
    with transaction.atomic():
        for _ in range(count):
            enqueue(topic="shop.events", key="K", type="shop.sold", payload=1)
    slept: list[int] = []

    def happen() -> bool:
        slept.append(relay.published)
        idling.stop.set()
        return False

    idling.happens = happen
    relay.run(idling.stop)
    assert slept == [count]


def test_a_wake_up_that_is_lost_costs_a_poll_even_with_messages_in_flight(
    relay: Relay, idling: Idling
) -> None:
    idling.are_heard = True
    put()
    relay._cycle.run(wait=0.0)
    put()
    # In flight, or not: by then the latest read is as old as a poll.
    idling.now += 0.7

    def stop() -> bool:
        idling.stop.set()
        return False

    idling.happens = stop
    relay.run(idling.stop)
    assert relay.published == 2
