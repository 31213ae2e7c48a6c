"""`@trigger(max_concurrent=n)`: delayed, never dropped, and nobody else is held up."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone
from sagaz.core.triggers import trigger

from sagas import SagaDefinitionError, call_in_thread
from sagas.definition import discovery, registry
from sagas.journal import claims
from sagas.models import ACTIVE, Saga
from sagas.worker.executor import Executor
from tests.unit.sagas.saga_running import (
    HOURS,
    QUICK,
    Context,
    Register,
    begin,
    run_to_end,
    working,
)
from tests.unit.sagas.scripted_sagas import Part, Script, chain, failing
from tests.unit.waiting import TIMEOUT, in_thread, until

pytestmark = pytest.mark.django_db(transaction=True)

LEASE = timedelta(seconds=60)


def triggers(*limits: Any) -> dict[str, Any]:
    """Members for a class: a trigger for each limit."""
    return {
        f"on_{n}": trigger(source=f"tours.{n}", idempotency_key="k", max_concurrent=limit)(
            lambda _self, event: dict(event)
        )
        for n, limit in enumerate(limits)
    }


class Gauge:
    """How many are inside at a time. `wait`: until so many have been inside at once, or a while
    has passed: what may not happen is given its chance."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self.most = 0
        self.total = 0
        self.crowd = threading.Event()

    def visit(self, *, crowd: int) -> None:
        with self._lock:
            self._inside += 1
            self.total += 1
            self.most = max(self.most, self._inside)
            if self._inside >= crowd:
                self.crowd.set()
        self.crowd.wait(0.03)
        with self._lock:
            self._inside -= 1


@pytest.fixture
def gauge() -> Gauge:
    return Gauge()


def visiting(gauge: Gauge, *, crowd: int) -> Callable[[Context], Any]:
    async def act(_: Context) -> None:
        await call_in_thread(gauge.visit, crowd=crowd)

    return act


def executors(count: int, *, concurrency: int = 8) -> ExitStack:
    stack = ExitStack()
    timing = replace(QUICK, lease=LEASE.total_seconds())
    for _ in range(count):
        stack.enter_context(in_thread(Executor(concurrency=concurrency, timing=timing).run))
    return stack


def none_left() -> bool:
    return not Saga.objects.filter(status__in=ACTIVE).exists()


class TestRunning:
    @pytest.mark.parametrize("most", [1, 3])
    def test_never_more_and_all_get_done(
        self, most: int, register: Register, script: Script, gauge: Gauge
    ) -> None:
        register(script.saga("tour", Part("stay", external=True), **triggers(most)))
        script.acts["stay"] = visiting(gauge, crowd=most + 1)
        sagas = [begin("tour", key=f"K-{n}") for n in range(10 * most)]
        with executors(2):
            until(none_left)
        assert gauge.most <= most
        assert gauge.most == most, "they did not even run side by side"
        assert gauge.total == len(sagas)
        assert Saga.objects.filter(status="completed").count() == len(sagas)

    def test_without_a_limit_they_do_run_side_by_side(
        self, register: Register, script: Script, gauge: Gauge
    ) -> None:
        """Or the test above would tell nothing."""
        register(script.saga("tour", Part("stay", external=True), **triggers(None)))
        script.acts["stay"] = visiting(gauge, crowd=5)
        for n in range(30):
            begin("tour", key=f"K-{n}")
        with executors(2):
            until(none_left)
        assert gauge.most > 3

    def test_others_are_not_held_up_by_hundreds_that_wait_for_their_turn(
        self, register: Register, script: Script
    ) -> None:
        may_end = threading.Event()

        async def stay(_: Context) -> None:
            await call_in_thread(until, may_end.is_set)

        script.acts["stay"] = stay
        register(
            script.saga("tour", Part("stay", external=True), **triggers(1)),
            script.saga("free", Part("fly")),
        )
        long_ago = timezone.now() - timedelta(hours=1)
        waiting = [begin("tour", key=f"K-{n}") for n in range(300)]
        Saga.objects.update(next_run_at=long_ago)
        free = [begin("free", key=f"F-{n}") for n in range(20)]
        with working(concurrency=4):
            until(lambda: Saga.objects.filter(id__in=free, status="completed").count() == 20)
            assert Saga.objects.filter(id__in=waiting, status="running").count() == 1
            Saga.objects.filter(id__in=waiting, status="pending").update(paused=True)
            may_end.set()

    def test_with_room_for_one_only_both_get_their_turn(
        self, register: Register, script: Script
    ) -> None:
        """A limited name that always has one more to run takes not every turn."""
        register(
            script.saga("tour", Part("stay"), **triggers(5)),
            script.saga("free", Part("fly")),
        )
        for n in range(60):
            begin("tour", key=f"K-{n}")
        free = [begin("free", key=f"F-{n}") for n in range(3)]
        Saga.objects.filter(id__in=free).update(next_run_at=timezone.now() - timedelta(hours=1))
        with working(concurrency=1):
            until(lambda: Saga.objects.filter(id__in=free, status="completed").count() == 3)
            begun_before = script.calls.index("fly")
            until(none_left)
        assert begun_before < 60

    def test_two_limited_names_with_room_for_one(self, register: Register, script: Script) -> None:
        register(
            script.saga("tour", Part("stay"), **triggers(5)),
            script.saga("other", Part("fly"), **triggers(5)),
        )
        for n in range(60):
            begin("tour", key=f"K-{n}")
        for n in range(3):
            begin("other", key=f"O-{n}")
        with working(concurrency=1):
            until(none_left)
        assert script.calls.count("fly") == 3
        assert script.calls.count("stay") == 60

    def test_one_that_waits_for_its_retry_takes_nobodys_turn(
        self, register: Register, script: Script
    ) -> None:
        register(script.saga("tour", Part("stay", external=True), **triggers(1)))
        script.acts["stay"] = failing(ConnectionError("away"))
        first = begin("tour")
        with working(timing=replace(QUICK, retry=HOURS)):
            until(lambda: Saga.objects.get(id=first).status == "waiting")
            second = begin("tour", key="K-2")
            until(lambda: Saga.objects.get(id=second).status == "completed")

    def test_nor_one_whose_worker_died(self, register: Register, script: Script) -> None:
        register(script.saga("tour", *chain(Part("fly"), Part("stay")), **triggers(1)))
        begin("tour")
        begin("tour", key="K-2")
        limits = registry.max_concurrent()
        dead = claims.claim(worker="dead", limit=9, lease=timedelta(0), at_most=limits)
        assert len(dead) == 1
        with working():
            until(none_left)
        assert Saga.objects.filter(status="completed").count() == 2

    def test_one_that_is_being_undone_counts_too(self, register: Register, script: Script) -> None:
        register(script.saga("tour", Part("fly"), **triggers(1)))
        limits = registry.max_concurrent()
        begin("tour")
        begin("tour", key="K-2")
        (held,) = claims.claim(worker="w", limit=9, lease=LEASE, at_most=limits)
        Saga.objects.filter(id=held.id).update(status="compensating", failure="no")
        assert claims.claim(worker="v", limit=9, lease=LEASE, at_most=limits) == []
        Saga.objects.filter(id=held.id).update(status="parked")
        assert len(claims.claim(worker="v", limit=9, lease=LEASE, at_most=limits)) == 1


class TestClaiming:
    def fill(self, **counts: int) -> None:
        for name, count in counts.items():
            for n in range(count):
                begin(name, key=f"K-{n}")

    @pytest.fixture(autouse=True)
    def _names(self, register: Register, script: Script) -> None:
        register(
            script.saga("one", Part("fly"), **triggers(1)),
            script.saga("three", Part("fly"), **triggers(3)),
            script.saga("free", Part("fly")),
        )

    def names(self, limit: int) -> dict[str, int]:
        found = claims.claim(
            worker="w", limit=limit, lease=LEASE, at_most=registry.max_concurrent()
        )
        counts: dict[str, int] = {}
        for each in found:
            counts[each.name] = counts.get(each.name, 0) + 1
        return counts

    def test_each_up_to_its_own(self) -> None:
        self.fill(one=5, three=5, free=5)
        assert self.names(20) == {"one": 1, "three": 3, "free": 5}
        assert self.names(20) == {}

    def test_never_more_than_there_is_room_for(self) -> None:
        self.fill(one=5, three=5, free=5)
        for _ in range(20):
            assert sum(self.names(2).values()) <= 2
        assert Saga.objects.filter(status="running").count() == 1 + 3 + 5

    def test_in_two_workers_at_once(self) -> None:
        """Each counts, then claims: together they must not take more than the limit."""
        self.fill(three=200)
        start = threading.Barrier(6)
        taken: list[int] = []

        def claim(worker: str) -> None:
            try:
                start.wait(TIMEOUT)
                for _ in range(10):
                    found = claims.claim(worker=worker, limit=8, lease=LEASE, at_most={"three": 3})
                    taken.append(len(found))
            finally:
                connections.close_all()

        threads = [threading.Thread(target=claim, args=(f"w{n}",)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(taken) == 60
        assert sum(taken) == 3
        assert Saga.objects.exclude(worker="").count() == 3

    def test_the_oldest_first(self) -> None:
        self.fill(three=5)
        early = Saga.objects.get(key="K-4")
        Saga.objects.filter(id=early.id).update(next_run_at=timezone.now() - timedelta(hours=1))
        (found,) = claims.claim(worker="w", limit=1, lease=LEASE, at_most={"three": 1})
        assert found.key == "K-4"


class TestDeclaring:
    @pytest.mark.parametrize(
        ("limits", "lowest"),
        [((3,), 3), ((5, 2, 9), 2), ((None, 4), 4), ((None,), None), ((), None), ((1, 1), 1)],
    )
    def test_of_several_the_lowest(
        self, limits: tuple[Any, ...], lowest: int | None, register: Register, script: Script
    ) -> None:
        register(script.saga("tour", Part("fly"), **triggers(*limits)))
        assert registry.max_concurrent() == ({} if lowest is None else {"tour": lowest})

    @pytest.mark.parametrize("limit", [0, -1, 1.5, True, "2"])
    def test_what_is_none_is_refused_at_start_up(self, limit: object, script: Script) -> None:
        with pytest.raises(SagaDefinitionError, match="max_concurrent must be 1 or more"):
            discovery.describe(script.saga("tour", Part("fly"), **triggers(limit)))

    def test_a_new_version_brings_its_own(self, register: Register, script: Script) -> None:
        register(
            script.saga("tour", Part("fly"), **triggers(2)),
            script.saga("tour", Part("fly"), version=2, **triggers(5)),
        )
        assert registry.max_concurrent() == {"tour": 5}
        assert run_to_end(begin("tour")).status == "completed"
