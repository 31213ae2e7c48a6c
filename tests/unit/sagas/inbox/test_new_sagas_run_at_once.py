"""New sagas are claimed by the transaction that inserts them, and run at once in this process."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from sagaz.core.triggers import trigger

from brokers import Record
from sagas import call_in_thread
from sagas.crash_points import Point, observe
from sagas.definition.identity import saga_id
from sagas.inbox import accepting
from sagas.journal import claims, new_sagas
from sagas.models import InboxMessage, Saga
from sagas.run.timing import Timing
from sagas.worker.executor import Executor
from tests.unit.sagas.saga_running import QUICK, Context, Register, begin, is_ended
from tests.unit.sagas.scripted_sagas import Part, Script
from tests.unit.waiting import TIMEOUT, in_thread, until

pytestmark = pytest.mark.django_db(transaction=True)

# Polls so seldom that whatever ends in a test was not found by a poll.
SELDOM = replace(QUICK, shortest_poll=600.0, longest_poll=600.0, suspects_interval=600.0)


def starting(**limits: Any) -> dict[str, Any]:
    return {
        "on_go": trigger(source="tour.go", idempotency_key="key", **limits)(
            lambda _self, event: dict(event)
        )
    }


@pytest.fixture
def tour(register: Register, script: Script) -> str:
    register(script.saga("tour", Part("fly", external=True), **starting()))
    return "tour"


def record(key: str) -> Record:
    headers = {
        "ce_specversion": "1.0",
        "ce_id": str(uuid4()),
        "ce_type": "tour.go",
        "ce_source": "/tests",
        "content-type": "application/json",
    }
    return Record(
        topic="tours",
        partition=0,
        offset=0,
        key=b"K",
        value=json.dumps({"key": key}).encode(),
        headers=tuple((name, text.encode()) for name, text in headers.items()),
    )


def accept(worker: Executor, *keys: str) -> list[UUID]:
    accepting.accept([record(key) for key in keys], consumer="tests", worker=worker)
    return [saga_id("tour", key) for key in keys]


@contextmanager
def idle_worker(*, concurrency: int = 4, timing: Timing = SELDOM) -> Iterator[Executor]:
    """A worker that has found nothing to claim, and will not look again by itself."""
    worker, stop = Executor(concurrency=concurrency, timing=timing), threading.Event()
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    try:
        until(lambda: worker.has_claimed and not worker._places.taken)
        yield worker
    finally:
        stop.set()
        worker.wake()  # or it would see that only at its next poll
        thread.join(TIMEOUT)
    assert not thread.is_alive()


class Held:
    """Steps that go on only when they are let go."""

    def __init__(self, script: Script) -> None:
        self.go = threading.Event()

        async def fly(_: Context) -> None:
            await call_in_thread(self.go.wait, TIMEOUT)

        script.acts["fly"] = fly


def test_run_without_a_claim(tour: str) -> None:
    with idle_worker() as worker:
        sagas = accept(worker, "a", "b", "c")
        until(lambda: is_ended(*sagas))
    found = Saga.objects.filter(id__in=sagas).values_list("status", "epoch", "takeovers")
    assert set(found) == {("completed", 1, 0)}


def test_are_the_workers_with_their_insert(tour: str, script: Script) -> None:
    """Nobody else can claim them in between, and their leases are as long as any."""
    held = Held(script)
    with idle_worker() as worker:
        (saga,) = accept(worker, "a")
        row = Saga.objects.get(id=saga)
        assert (row.status, row.epoch, row.worker) == ("running", 1, worker._worker)
        assert row.next_run_at > timezone.now() + timedelta(seconds=QUICK.lease / 2)
        held.go.set()
        until(lambda: is_ended(saga))


def test_beyond_the_free_places_wait_for_one(tour: str, script: Script) -> None:
    held = Held(script)
    with idle_worker(concurrency=2) as worker:
        sagas = accept(worker, "a", "b", "c", "d")
        assert Saga.objects.filter(status="pending").count() == 2
        held.go.set()
        # An end makes room: nothing polls here.
        until(lambda: is_ended(*sagas))


def test_behind_older_ones_wait_their_turn(tour: str, script: Script) -> None:
    held = Held(script)
    with idle_worker(concurrency=1) as worker:
        first, second = accept(worker, "a"), accept(worker, "b")
        third = accept(worker, "c")
        assert set(Saga.objects.filter(status="pending").values_list("key", flat=True)) == {
            "b",
            "c",
        }
        held.go.set()
        until(lambda: is_ended(*first, *second, *third))


def test_of_a_name_with_a_limit_are_counted_among_all_workers(
    register: Register, script: Script
) -> None:
    register(script.saga("tour", Part("fly", external=True), **starting(max_concurrent=1)))
    held = Held(script)
    with idle_worker() as worker:
        sagas = accept(worker, "a", "b")
        until(lambda: script.calls == ["fly"])
        assert Saga.objects.filter(status="pending").count() == 1
        held.go.set()
        # The end of the first lets the second begin: nothing polls here.
        until(lambda: is_ended(*sagas))


def test_that_another_consumer_inserts_meanwhile_are_not_ours(
    tour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look for known sagas and the insert."""
    real = new_sagas.unknown_sagas

    def unknown_sagas(sagas: Any) -> Any:
        found = real(sagas)
        begin(tour, key="a")
        return found

    claimed: list[Any] = []

    def insert_sagas(*args: Any, **kwargs: Any) -> Any:
        claimed.append(found := new_sagas.insert_sagas(*args, **kwargs))
        return found

    monkeypatch.setattr(accepting, "unknown_sagas", unknown_sagas)
    monkeypatch.setattr(accepting, "insert_sagas", insert_sagas)
    with idle_worker() as worker:
        (saga,) = accept(worker, "a")
        assert claimed == [[]]
        until(lambda: is_ended(saga) and not worker._places.taken)


def test_of_a_batch_that_is_rolled_back_never_run(
    tour: str, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(point: Point, _: str) -> None:
        if point is Point.BEFORE_INBOX_COMMIT:
            raise OperationalError("server closed the connection")

    with idle_worker() as worker:
        end = observe(break_off)
        with pytest.raises(OperationalError):
            accept(worker, "a")
        end()
        until(lambda: not worker._places.taken)
        assert not script.calls
        assert not Saga.objects.exists()
        assert not InboxMessage.objects.exists()


def test_of_a_worker_that_stops_are_released(tour: str, script: Script) -> None:
    """They were committed before it could start them: the next one need not wait for the lease."""
    worker = Executor(concurrency=4, timing=SELDOM)
    stop = threading.Event()
    ended = threading.Event()

    def run() -> None:
        worker.run(stop)
        ended.set()

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: worker.has_claimed and not worker._places.taken)

    def stop_now(point: Point, _: str) -> None:
        if point is Point.BEFORE_INBOX_COMMIT:
            stop.set()
            worker.wake()
            until(lambda: not worker._places.is_open)

    end = observe(stop_now)
    (saga,) = accept(worker, "a")
    end()
    until(ended.is_set)
    thread.join()
    row = Saga.objects.get(id=saga)
    assert (row.status, row.worker, row.takeovers) == ("running", "", 0)
    assert not script.calls
    assert claims.claim(worker="next", limit=1, lease=timedelta(0))[0].takeovers == 0


def test_an_end_asks_for_no_claim_where_nothing_waits(tour: str) -> None:
    """At each end it would be a statement for nothing."""
    asked: list[int] = []
    real = claims.claim

    def claim(**kwargs: Any) -> Any:
        asked.append(1)
        return real(**kwargs)

    with pytest.MonkeyPatch.context() as patch, idle_worker(concurrency=8) as worker:
        patch.setattr(claims, "claim", claim)
        sagas = [saga for n in range(8) for saga in accept(worker, f"K-{n}")]
        until(lambda: is_ended(*sagas) and not worker._places.taken)
        assert not asked


def test_a_batch_claims_in_the_statements_of_a_batch(tour: str, script: Script) -> None:
    """However many sagas there are."""
    held = Held(script)
    counts = []
    for size in (1, 8):
        with idle_worker(concurrency=8) as worker:
            with CaptureQueriesContext(connection) as queries:
                sagas = accept(worker, *(f"{size}-{n}" for n in range(size)))
            counts.append(len(queries))
            held.go.set()
            until(lambda sagas=sagas: is_ended(*sagas))  # type: ignore[misc]
    assert counts[0] == counts[1]


def test_without_a_worker_are_pending(tour: str) -> None:
    accepting.accept([record("a")], consumer="tests")
    assert Saga.objects.get().status == "pending"
    assert new_sagas.insert_sagas([]) == []


@pytest.mark.on_postgresql  # on SQLite nobody else can write meanwhile
def test_that_this_worker_has_claimed_meanwhile_runs_once(
    tour: str, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another consumer inserts it just before our insert, and our worker claims it at once."""
    held = Held(script)
    real = new_sagas.unknown_sagas

    def unknown_sagas(sagas: Any) -> Any:
        found = real(sagas)

        def insert(_: threading.Event) -> None:
            begin(tour, key="a")
            worker.wake()
            until(lambda: script.calls == ["fly"])

        with in_thread(insert):
            pass
        return found

    monkeypatch.setattr(accepting, "unknown_sagas", unknown_sagas)
    with idle_worker() as worker:
        (saga,) = accept(worker, "a")
        held.go.set()
        until(lambda: is_ended(saga) and not worker._places.taken)
    assert script.calls == ["fly"]


def test_the_oldest_of_a_batch_run_first(tour: str, script: Script) -> None:
    held = Held(script)
    with idle_worker(concurrency=2) as worker:
        sagas = accept(worker, "a", "b", "c", "d")
        pending = Saga.objects.filter(status="pending").values_list("key", flat=True)
        assert set(pending) == {"c", "d"}
        held.go.set()
        until(lambda: is_ended(*sagas))


def test_a_step_sees_nothing_that_the_inbox_has_set(tour: str, script: Script) -> None:
    """Such as what a trigger binds for its log lines."""
    bound: ContextVar[str] = ContextVar("bound", default="")
    seen: list[str] = []
    script.acts["fly"] = lambda _: seen.append(bound.get())
    with idle_worker() as worker:
        token = bound.set("by the inbox")
        (saga,) = accept(worker, "a")
        bound.reset(token)
        until(lambda: is_ended(saga))
    assert seen == [""]
