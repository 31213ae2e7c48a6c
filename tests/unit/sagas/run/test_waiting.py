"""Backoffs: the short ones rest in the worker, a long one gives the saga up until it is due."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from saga_runtime import prepared
from saga_runtime.backoff import Backoff
from sagas import StepRejected, call_in_thread, idempotency_key
from sagas.journal import claims, sql
from sagas.models import Saga
from sagas.run.resting import Resting
from sagas.run.timing import Timing
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
from tests.unit.sagas.scripted_sagas import Part, Script, chain, failing, failures_of, raising
from tests.unit.waiting import in_thread, until

pytestmark = pytest.mark.django_db(transaction=True)

HOUR = 3600.0
AWAY = ConnectionError("away")


@pytest.fixture
def tour(register: Register, script: Script) -> None:
    register(script.saga("tour", *chain(Part("fly"), Part("stay", external=True), Part("eat"))))


IN_AN_HOUR = replace(QUICK, retry=HOURS)
"""Every retry is due in an hour, more or less."""


def row(saga: UUID) -> Saga:
    return Saga.objects.get(id=saga)


def seconds_until_due(saga: UUID) -> float:
    return (row(saga).next_run_at - timezone.now()).total_seconds()


def until_waiting(saga: UUID) -> None:
    until(lambda: row(saga).status == "waiting")


def make_due(saga: UUID) -> None:
    Saga.objects.filter(id=saga).update(next_run_at=timezone.now())


@pytest.mark.usefixtures("tour")
class TestALongBackoff:
    @pytest.mark.parametrize("step", ["fly", "stay"], ids=["local", "external"])
    def test_gives_the_saga_up(self, step: str, script: Script) -> None:
        script.acts[step] = raising(AWAY)
        saga = begin("tour")
        with working(timing=IN_AN_HOUR) as worker:
            until_waiting(saga)
            until(lambda: not worker._running)
            found = row(saga)
            assert (found.status, found.worker, found.failure) == ("waiting", "", "")
            assert HOUR / 2 - 60 < seconds_until_due(saga) < HOUR * 1.5
            assert found.epoch == 1

    def test_claimed_again_when_due_with_the_same_key_and_the_failures_counted_on(
        self, script: Script
    ) -> None:
        keys: list[str] = []
        away = raising(AWAY)

        def stay(ctx: Context) -> Any:
            keys.append(idempotency_key())
            return away(ctx)

        script.acts["stay"] = stay
        saga = begin("tour")
        with working(timing=IN_AN_HOUR):
            for n in (1, 2):
                until_waiting(saga)
                until(lambda n=n: len(keys) == n)  # type: ignore[misc]
                assert failures_of(saga)["stay:F"] == ("unknown", n, n)
                make_due(saga)
                until(lambda n=n: len(keys) == n + 1)  # type: ignore[misc]
            # The third failure is the last: two retries, whoever made them.
            until(lambda: row(saga).status == "rolled_back")
        assert keys == [f"{saga}:stay:F"] * 3
        assert failures_of(saga)["stay:F"] == ("unknown", 3, 3)
        assert row(saga).takeovers == 0
        assert script.calls == ["fly", "stay", "stay", "stay", "unstay", "unfly"]

    def test_without_being_due_it_is_not_claimed(self, script: Script) -> None:
        script.acts["stay"] = failing(AWAY)
        saga = begin("tour")
        with working(timing=IN_AN_HOUR):
            until_waiting(saga)
        run_to_end(begin("tour", key="K-2"), timing=IN_AN_HOUR)
        assert (row(saga).status, row(saga).epoch) == ("waiting", 1)
        make_due(saga)
        assert run_to_end(saga, timing=IN_AN_HOUR).status == "completed"
        assert row(saga).epoch == 2

    def test_in_compensation(self, script: Script) -> None:
        seen: list[str] = []
        left = [AWAY]

        def unfly(_: Context) -> None:
            seen.append(row(saga).status)
            if left:
                raise left.pop()

        script.acts |= {"stay": raising(StepRejected("full")), "unfly": unfly}
        saga = begin("tour")
        with working(timing=IN_AN_HOUR) as worker:
            until_waiting(saga)
            until(lambda: not worker._running)
            assert (row(saga).worker, row(saga).failure) == ("", "full")
            make_due(saga)
            until(lambda: row(saga).status == "rolled_back")
        assert seen == ["compensating", "compensating"]
        assert failures_of(saga)["fly:C"] == ("done", 2, 1)
        assert script.calls == ["fly", "stay", "unfly", "unfly"]

    def test_holds_up_no_other(self, script: Script) -> None:
        def stay(ctx: Context) -> None:
            if ctx.get("waits"):
                raise AWAY

        script.acts["stay"] = stay
        waiting = begin("tour", waits=True)
        others = [begin("tour", key=f"K-{n}") for n in range(2, 6)]
        with working(timing=IN_AN_HOUR, concurrency=1):
            until(lambda: Saga.objects.filter(id__in=others, status="completed").count() == 4)
        assert row(waiting).status == "waiting"

    def test_a_stop_changes_nothing_for_one_that_waits(self, script: Script) -> None:
        script.acts["stay"] = raising(AWAY)
        saga = begin("tour")
        with working(timing=IN_AN_HOUR):
            until_waiting(saga)
        assert row(saga).status == "waiting"
        assert seconds_until_due(saga) > HOUR / 2 - 60


@pytest.mark.usefixtures("tour")
class TestAShortBackoff:
    def test_rests_in_its_worker(self, script: Script) -> None:
        timing = replace(QUICK, retry=Backoff(first=0.2, longest=30.0))
        saga = begin("tour")
        script.acts["stay"] = failing(AWAY, AWAY)
        assert run_to_end(saga, timing=timing).status == "completed"
        assert row(saga).epoch == 1, "it was given up"

    def test_a_stop_during_it_hands_over(self, script: Script) -> None:
        """At once, and the next worker need not wait for a lease."""
        timing = replace(QUICK, retry=HOURS, longest_rest=2 * HOUR)
        script.acts["stay"] = failing(AWAY)
        saga = begin("tour")
        with working(timing=timing, lease=1000, grace=1000):
            until(lambda: failures_of(saga).get("stay:F") == ("unknown", 1, 1))
        assert (row(saga).status, row(saga).worker) == ("running", "")
        assert row(saga).next_run_at <= timezone.now()
        assert run_to_end(saga).status == "completed"
        assert failures_of(saga)["stay:F"] == ("done", 2, 1)
        assert row(saga).takeovers == 0


class TestSideBySide:
    @pytest.fixture(autouse=True)
    def _pair(self, register: Register, script: Script) -> None:
        join = Part("join", after=("left", "right"))
        register(
            script.saga("pair", Part("left", external=True), Part("right", external=True), join)
        )

    def test_one_that_works_keeps_the_saga(self, script: Script) -> None:
        """It is given up only when the other step has ended too, and that one's work counts."""
        timing = replace(IN_AN_HOUR, longest_rest=0.02)
        may_end = threading.Event()
        script.acts["left"] = failing(AWAY)

        async def right(_: Context) -> Context:
            await call_in_thread(until, may_end.is_set)
            return {"r": 2}

        script.acts["right"] = right
        saga = begin("pair")
        with working(timing=timing) as worker:
            until(lambda: failures_of(saga).get("left:F") == ("unknown", 1, 1))
            (held,) = [run for _, run in worker._running.values()]
            until(lambda: held._state.resting)
            # Many times the longest rest, and still it is held.
            since = time.monotonic()
            until(lambda: time.monotonic() - since > 0.2)
            assert (row(saga).status, bool(row(saga).worker)) == ("running", True)
            may_end.set()
            until_waiting(saga)
            until(lambda: not worker._running)
        assert failures_of(saga)["right:F"] == ("done", 1, 0)
        make_due(saga)
        assert run_to_end(saga, timing=IN_AN_HOUR).status == "completed"
        assert sorted(script.calls) == ["join", "left", "left", "right"]

    @pytest.mark.parametrize("shorter", ["left", "right"])
    def test_of_two_that_wait_the_earlier_counts(
        self, shorter: str, script: Script, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seconds = {shorter: 600.0}

        async def rest(self: Any, step: Any, _seconds: float) -> None:
            await real(self, step, seconds.get(step.name, HOUR))

        real = Resting.rest
        monkeypatch.setattr(Resting, "rest", rest)
        script.acts |= {"left": failing(AWAY), "right": failing(AWAY)}
        saga = begin("pair")
        with working(timing=IN_AN_HOUR) as worker:
            until_waiting(saga)
            until(lambda: not worker._running)
        assert 500 < seconds_until_due(saga) <= 600
        make_due(saga)
        assert run_to_end(saga, timing=IN_AN_HOUR).status == "completed"
        assert failures_of(saga)["left:F"] == failures_of(saga)["right:F"] == ("done", 2, 1)

    def test_a_short_rest_beside_a_long_one(
        self, script: Script, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The short one is rested in the worker, and then the saga is given up for the long one."""

        async def rest(self: Any, step: Any, _seconds: float) -> None:
            await real(self, step, 0.1 if step.name == "left" else HOUR)

        real = Resting.rest
        monkeypatch.setattr(Resting, "rest", rest)
        script.acts |= {"left": failing(AWAY, AWAY), "right": failing(AWAY)}
        saga = begin("pair")
        with working(timing=IN_AN_HOUR):
            until_waiting(saga)
        assert failures_of(saga)["left:F"] == ("done", 3, 2)
        assert seconds_until_due(saga) > HOUR - 60
        assert row(saga).epoch == 1


WAITING = 10_000


@pytest.fixture
def _ten_thousand_waiting(tour: None) -> None:
    template = row(begin("tour"))
    due = timezone.now() + timedelta(hours=1)
    Saga.objects.bulk_create(
        [
            Saga(
                id=uuid4(),
                name="tour",
                key=f"W-{n}",
                definition_hash=template.definition_hash,
                input=template.input,
                status="waiting",
                epoch=1,
                next_run_at=due + timedelta(seconds=n),
            )
            for n in range(WAITING)
        ],
        batch_size=1000,
    )
    template.delete()


@contextmanager
def statements_counted() -> Iterator[list[str]]:
    """Those of all threads but this one."""
    here = threading.get_ident()
    seen: list[str] = []
    real, real_exchange = CursorWrapper.execute, prepared.exchange

    def exchange(wrapper: Any, statements: Any) -> Any:
        if threading.get_ident() != here:
            seen.extend(sql for sql, _ in statements)
        return real_exchange(wrapper, statements)

    def execute(self: CursorWrapper, sql: Any, params: Any = None) -> Any:
        if threading.get_ident() != here:
            seen.append(str(sql))
        return real(self, sql, params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CursorWrapper, "execute", execute)
        patch.setattr(prepared, "exchange", exchange)
        yield seen


@pytest.mark.usefixtures("_ten_thousand_waiting")
class TestTenThousandThatWait:
    def test_cost_an_idle_worker_next_to_nothing(self) -> None:
        seconds = 2.0
        with statements_counted() as seen, working(timing=Timing(), concurrency=32):
            until(lambda: len(seen) >= 3)
            since, before = time.monotonic(), len(seen)
            until(lambda: time.monotonic() - since > seconds and len(seen) > before)
            # At its start it looks more often.
            assert len(seen) - before <= 8 * (time.monotonic() - since), seen
        assert Saga.objects.filter(status="waiting", epoch=1).count() == WAITING

    def test_one_that_is_due_is_found_among_them(self) -> None:
        due = Saga.objects.get(key="W-7777")
        make_due(due.id)
        with working(concurrency=1):
            until(lambda: row(due.id).status == "completed")
        assert Saga.objects.filter(status="waiting").count() == WAITING - 1

    @pytest.mark.on_postgresql
    def test_the_claim_uses_its_index(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Saga.objects.filter(key__in=["W-1", "W-2"]).update(next_run_at=timezone.now())
        # Most sagas of a grown table have ended.
        Saga.objects.filter(key__endswith="5").update(status="completed")
        plans: list[str] = []
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE sagas_saga")
        real = sql.run_planned

        def explain(text: str, params: Any) -> Any:
            if "UPDATE sagas_saga SET epoch" in text:
                plans.extend(line for (line,) in real(f"EXPLAIN {text}", params))
            return real(text, params)

        monkeypatch.setattr(sql, "run_planned", explain)
        claimed = claims.claim(worker="w", limit=16, lease=timedelta(seconds=10))
        assert {each.key for each in claimed} == {"W-1", "W-2"}
        plan = "\n".join(plans)
        assert "sagas_claimable" in plan
        assert "Seq Scan" not in plan


def test_two_workers_do_not_both_take_up_one_that_is_due(tour: None, script: Script) -> None:
    script.acts["stay"] = failing(AWAY)
    saga = begin("tour")
    with working(timing=IN_AN_HOUR):
        until_waiting(saga)
    make_due(saga)
    other = Executor(concurrency=4, timing=IN_AN_HOUR)
    with working(timing=IN_AN_HOUR), in_thread(other.run):
        until(lambda: row(saga).status == "completed")
    assert row(saga).epoch == 2
    assert script.calls == ["fly", "stay", "stay", "eat"]
