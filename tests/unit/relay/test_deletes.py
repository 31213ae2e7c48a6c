"""While PostgreSQL deletes one batch, the next is read and published."""

import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import pytest
from django.db import OperationalError

from outbox.models import OutboxLane, ParkedMessage
from relay.assembly import open_store, relay_name
from relay.loop import Relay
from relay.store import Row, Store
from relay.timing import Timing
from saga_runtime.backoff import Backoff
from tests.unit.relay.scripted import QUICK, Kafka, left, make_relay, put
from tests.unit.waiting import TIMEOUT, in_thread, until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.on_postgresql]


class Gate:
    """Holds up every delete of `store` while it is shut, before the statement is sent. `trouble` is
    what the next ones raise instead."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._delete = store.delete
        self._open = threading.Event()
        self.trouble: list[Exception] = []
        self.waiting: list[int] = []
        """The ids that are in the delete that waits."""

    def delete(self, batch: Collection[Row], epochs: Mapping[int, int]) -> None:
        self.waiting = [row.id for row in batch]
        assert self._open.wait(TIMEOUT)
        self.waiting = []
        if self.trouble:
            raise self.trouble.pop()
        self._delete(batch, epochs)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    store = open_store(relay_name())
    gate = Gate(store)
    monkeypatch.setattr(store, "delete", gate.delete)
    return gate


@contextmanager
def running(
    broker: Kafka, gate: Gate, *, batch_size: int = 4, timing: Timing = QUICK
) -> Iterator[Relay]:
    relay = make_relay(broker, batch_size=batch_size, timing=timing, store=gate.store)
    with in_thread(relay.run):
        try:
            yield relay
        finally:
            gate.open()


def test_the_next_batches_are_published_meanwhile_and_nothing_twice(gate: Gate) -> None:
    ids = put(*"abcd" * 3)
    broker = Kafka()
    with running(broker, gate):
        until(lambda: len(broker.accepted) == 12)
        assert set(gate.waiting) < set(ids)
        assert left() == 12
    assert left() == 0
    assert [broker.order_of(key) for key in "ab"] == [[0, 4, 8], [1, 5, 9]]


def test_three_batches_are_in_flight_at_most(gate: Gate) -> None:
    put(*"abcd" * 5)
    broker = Kafka()
    with running(broker, gate) as relay:
        until(lambda: len(broker.accepted) == 12)
        cycles = threading.Semaphore(0)
        relay._alive = cycles.release
        for _ in range(3):
            assert cycles.acquire(timeout=TIMEOUT)
        assert relay.in_flight == 12


def test_one_that_fails_is_repeated_and_nothing_is_sent_again(gate: Gate) -> None:
    put(*"abab")
    gate.trouble = [OperationalError("server closed the connection")] * 2
    broker = Kafka()
    with running(broker, gate) as relay:
        until(lambda: bool(gate.waiting))
        gate.open()
        until(lambda: left() == 0)
        assert relay.outages["database"] == 1
    assert (broker.order_of("a"), broker.order_of("b")) == ([0, 2], [1, 3])


def test_lanes_that_others_take_meanwhile_keep_their_rows(gate: Gate) -> None:
    put("a", "b")
    broker = Kafka()
    with running(broker, gate):
        until(lambda: bool(gate.waiting))
        OutboxLane.objects.update(owner="another", epoch=100)
        gate.open()
        until(lambda: not gate.waiting)
    assert left() == 2


def test_stopping_deletes_what_is_acknowledged_and_only_then_frees_the_lanes(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(*"abcd")
    broker = Kafka()
    relay = make_relay(broker, batch_size=2, store=gate.store)
    at_release: list[int] = []
    release = relay._cycle.lanes.release

    def noted() -> None:
        at_release.append(left())
        release()

    monkeypatch.setattr(relay._cycle.lanes, "release", noted)
    with in_thread(relay.run) as stop:
        until(lambda: len(broker.accepted) == 4)
        stop.set()
        gate.open()
    assert at_release == [0]
    assert relay.published == 4


def test_stopping_deletes_nothing_that_is_not_reported(gate: Gate) -> None:
    put("a", "a")
    broker = Kafka()
    broker.silent = True
    with running(broker, gate, timing=replace(QUICK, flush_timeout=0.1)):
        until(lambda: len(broker._queue) == 2)
    assert left() == 2


def test_what_is_being_deleted_is_not_parked_with_its_key(gate: Gate) -> None:
    put("a", "a", "b")
    broker = Kafka(lambda batch: ["refuse" if m.value == b"1" else "ok" for m in batch])
    with running(broker, gate, batch_size=10):
        until(lambda: bool(gate.waiting))
        gate.open()
        until(lambda: left() == 0)
    assert [parked.key for parked in ParkedMessage.objects.all()] == ["a"]
    assert broker.order_of("a") == [0]


def test_segments_are_emptied_between_two_deletes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A delete holds a lock on every segment, and emptying does not wait for locks."""
    busy: list[bool] = []
    relay = make_relay(
        Kafka(), batch_size=5, timing=replace(QUICK, segments=Backoff(first=0.0, longest=0.0))
    )
    tend = relay._cycle.segments.tend

    def noted() -> None:
        if relay._cycle.segments.is_due:
            busy.append(relay._cycle.deleter.is_busy)
        tend()

    monkeypatch.setattr(relay._cycle.segments, "tend", noted)
    put(*"abcde" * 20)
    relay.drain(threading.Event())
    assert len(busy) > 10
    assert not any(busy)
