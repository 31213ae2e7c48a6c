"""`run_saga_sync`: sagas that are run to their end where they are called."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import OperationalError, connections, transaction
from django.utils import timezone
from sagaz import Saga as SagaClass
from sagaz import action, compensate
from sagaz.core.triggers import trigger

from saga_runtime.correlation import Correlation, correlated
from sagas import (
    CannotRunHere,
    SagaDefinitionError,
    SagaFailed,
    SagaOutcome,
    SagaParked,
    SagaUnfinished,
    StepRejected,
    call_in_thread,
    run_saga_sync,
    saga_id,
)
from sagas.definition.hooks import Hook
from sagas.errors import UnstorableValue
from sagas.journal import claims
from sagas.journal.final_context import final_context
from sagas.models import Saga, SagaStep
from sagas.worker.executor import Executor
from sagas.worker.run_here import LocalRunner
from tests.unit.sagas import journal_entries as entries
from tests.unit.sagas.saga_running import (
    QUICK,
    TRACEPARENT,
    Context,
    Register,
    begin,
    journal_of,
    run_to_end,
    working,
)
from tests.unit.waiting import TIMEOUT, until

pytestmark = pytest.mark.django_db(transaction=True)


class Cake(SagaClass):
    """Three steps. `calls`: what was run; `script`: what a test hangs into them."""

    saga_name = "cake"
    calls: list[str]
    script: dict[str, Callable[[Context], Any]]

    def _run(self, name: str, ctx: Context) -> Any:
        self.calls.append(name)
        return self.script[name](ctx) if name in self.script else None

    @action("mix", max_retries=0)
    def mix(self, ctx: Context) -> Any:
        return self._run("mix", ctx) or {"dough": Decimal("1.50"), "last": "mix"}

    @compensate("mix")
    def unmix(self, ctx: Context) -> Any:
        return self._run("unmix", ctx) or {"thrown_away": True}

    @action("bake", depends_on=["mix"], max_retries=0)
    async def bake(self, ctx: Context) -> Any:
        return await call_in_thread(self._run, "bake", ctx) or {"last": "bake"}

    @compensate("bake", max_retries=0)
    async def unbake(self, ctx: Context) -> Any:
        return await call_in_thread(self._run, "unbake", ctx)

    @action("ice", depends_on=["bake"], max_retries=0)
    def ice(self, ctx: Context) -> Any:
        return self._run("ice", ctx)


@pytest.fixture(autouse=True)
def _cakes(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cake, "calls", [], raising=False)
    monkeypatch.setattr(Cake, "script", {}, raising=False)
    register(Cake)


def places(count: int) -> threading.BoundedSemaphore:
    """So many workers may be in this process."""
    semaphore = threading.BoundedSemaphore(max(count, 1))
    if count == 0:
        semaphore.acquire()
    return semaphore


def rejecting(text: str) -> Callable[[Context], Any]:
    def reject(_: Context) -> None:
        raise StepRejected(text)

    return reject


def breaking(_: Context) -> None:
    raise ConnectionError("nobody there")


def waiting_for(event: threading.Event) -> Callable[[Context], None]:
    return lambda _: until(event.is_set)


class TestTheResult:
    def test_is_the_final_context(self) -> None:
        context = run_saga_sync(Cake, {"for": "Ann"}, key="C-1")
        assert context == {
            "for": "Ann",
            "saga_id": str(saga_id("cake", "C-1")),
            "dough": Decimal("1.50"),
            "last": "bake",
        }
        assert Cake.calls == ["mix", "bake", "ice"]

    def test_is_that_of_the_hook(self, on_finish: Callable[[str, Hook], None]) -> None:
        outcomes: list[SagaOutcome] = []
        on_finish("cake", outcomes.append)
        Cake.script["ice"] = lambda ctx: ctx.update(dough=(1, 2))
        context = run_saga_sync(Cake, {"for": "Ann", "dough": None, "saga_id": "sagaz's own"})
        assert [outcome.context for outcome in outcomes] == [context]
        assert context["dough"] == (1, 2)

    def test_is_without_what_sagaz_keeps_for_itself(self) -> None:
        result = run_saga_sync(Cake, {"__mine": 1})
        assert result["__mine"] == 1
        assert not {f"__{step}_completed" for step in ("mix", "bake", "ice")} & result.keys()

    def test_of_steps_side_by_side_the_last_to_finish_counts(self, register: Register) -> None:
        class Sides(SagaClass):
            saga_name = "sides"
            parallel_roots = True

            @action("left")
            async def left(self, _: Context) -> Context:
                right = SagaStep.objects.filter(step="right", status="done")
                await call_in_thread(until, right.exists)
                return {"last": "left"}

            @action("right")
            def right(self, _: Context) -> Context:
                return {"last": "right"}

        register(Sides)
        assert run_saga_sync(Sides, {})["last"] == "left"

    def test_is_journalled_like_any_other(self) -> None:
        with correlated(Correlation("trace-7", TRACEPARENT)):
            run_saga_sync(Cake, {}, key="C-1")
        saga = Saga.objects.get(id=saga_id("cake", "C-1"))
        assert (saga.status, saga.key, saga.version) == ("completed", "C-1", 1)
        assert (saga.correlation_id, saga.traceparent) == ("trace-7", TRACEPARENT)
        assert journal_of(saga.id) == {
            "mix:F": ("done", 1),
            "bake:F": ("done", 1),
            "ice:F": ("done", 1),
        }

    def test_without_a_correlation_one_is_made(self) -> None:
        run_saga_sync(Cake, {})
        assert Saga.objects.get().correlation_id

    def test_the_deadline_of_the_class_counts(self, register: Register) -> None:
        class Late(Cake):
            saga_name = "late"
            deadline = timedelta(microseconds=1)

        register(Late)
        with pytest.raises(SagaFailed, match="its deadline has passed"):
            run_saga_sync(Late, {})

    def test_an_instance_stands_for_its_class(self) -> None:
        assert run_saga_sync(Cake(), {"for": "Ann"})["for"] == "Ann"

    def test_other_sagas_are_left_alone(self) -> None:
        other = begin("cake", key="C-9")
        run_saga_sync(Cake, {}, key="C-1")
        assert Saga.objects.get(id=other).status == "pending"

    def test_nothing_of_it_is_left_running(self) -> None:
        before = set(threading.enumerate())
        run_saga_sync(Cake, {})
        assert set(threading.enumerate()) <= before


class TestTheKey:
    def test_without_one_each_call_is_a_saga_of_its_own(self) -> None:
        run_saga_sync(Cake, {})
        run_saga_sync(Cake, {})
        assert Saga.objects.count() == 2

    def test_a_second_call_gets_the_result_of_the_first(self) -> None:
        first = run_saga_sync(Cake, {"for": "Ann"}, key="C-1")
        assert run_saga_sync(Cake, {"for": "Bob"}, key="C-1") == first
        assert Cake.calls == ["mix", "bake", "ice"]

    def test_a_second_call_hears_of_the_failure_of_the_first(self) -> None:
        Cake.script["ice"] = rejecting("no sugar")
        for _ in range(2):
            with pytest.raises(SagaFailed, match="no sugar"):
                run_saga_sync(Cake, {}, key="C-1")
        assert Cake.calls.count("ice") == 1

    def test_calls_at_the_same_time_run_it_once(self) -> None:
        def call(_: int) -> Context:
            try:
                return run_saga_sync(Cake, {"for": "Ann"}, key="C-1", timeout=TIMEOUT)
            finally:
                connections.close_all()

        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(call, range(4)))
        assert Cake.calls == ["mix", "bake", "ice"]
        assert results == [results[0]] * 4

    def test_one_that_another_worker_runs_is_awaited(self) -> None:
        may_bake = threading.Event()
        Cake.script["bake"] = waiting_for(may_bake)
        begin("cake", key="C-1", **{"for": "Ann"})
        with working(), ThreadPoolExecutor(1) as pool:
            until(lambda: "bake" in Cake.calls)
            answer = pool.submit(run_and_disconnect, "C-1")
            may_bake.set()
            assert answer.result(TIMEOUT)["for"] == "Ann"
        assert Cake.calls == ["mix", "bake", "ice"]

    def test_one_whose_worker_died_is_taken_over(self) -> None:
        begin("cake", key="C-1")
        (dead,) = claims.claim(worker="dead", limit=1, lease=timedelta(0))
        entries.done(dead, "mix", "F", attempt=1, result={"dough": 7})
        assert run_saga_sync(Cake, {}, key="C-1")["dough"] == 7
        assert Cake.calls == ["bake", "ice"]

    @pytest.mark.parametrize("key", ["", "K" * 256, "a\0b", "\ud800"])
    def test_must_be_storable(self, key: str) -> None:
        with pytest.raises(ValueError, match="1 to 255 characters"):
            run_saga_sync(Cake, {}, key=key)


def run_and_disconnect(key: str) -> Context:
    try:
        return run_saga_sync(Cake, {}, key=key, timeout=TIMEOUT)
    finally:
        connections.close_all()


class TestWhatDoesNotComplete:
    def test_one_that_was_rolled_back(self) -> None:
        Cake.script["ice"] = rejecting("no sugar")
        with pytest.raises(SagaFailed, match=r"^no sugar$") as failed:
            run_saga_sync(Cake, {"for": "Ann"}, key="C-1")
        assert failed.value.saga_id == saga_id("cake", "C-1")
        assert failed.value.context == {
            "for": "Ann",
            "saga_id": str(saga_id("cake", "C-1")),
            "dough": Decimal("1.50"),
            "last": "bake",
            "thrown_away": True,
        }

    def test_one_that_was_parked(self) -> None:
        Cake.script |= {"ice": rejecting("no sugar"), "unbake": breaking}
        with pytest.raises(SagaParked, match="undoing bake keeps failing") as parked:
            run_saga_sync(Cake, {"for": "Ann"}, key="C-1")
        assert parked.value.saga_id == saga_id("cake", "C-1")
        assert parked.value.context["last"] == "bake"

    def test_when_time_is_up_it_goes_on_in_a_consumer(self) -> None:
        runner = LocalRunner(places=places(0))
        with pytest.raises(SagaUnfinished, match="pending still") as unfinished:
            runner.run(Cake, {"for": "Ann"}, key=None, timeout=0)
        assert unfinished.value.context["for"] == "Ann"
        assert run_to_end(unfinished.value.saga_id).status == "completed"

    def test_the_step_that_runs_when_time_is_up_is_begun_again_by_a_consumer(self) -> None:
        is_out = threading.Event()
        Cake.script["bake"] = waiting_for(is_out)
        with pytest.raises(SagaUnfinished, match="running still") as unfinished:
            run_until_it_bakes("C-1")
        key = unfinished.value.saga_id
        assert unfinished.value.context["last"] == "mix"
        until(lambda: not Saga.objects.get(id=key).worker)
        del Cake.script["bake"]
        assert run_to_end(key).status == "completed"
        is_out.set()
        assert Cake.calls == ["mix", "bake", "bake", "ice"]
        assert journal_of(key)["bake:F"] == ("done", 2)
        until(lambda: not workers())

    def test_a_worker_that_breaks_is_told_of(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(_self: Executor, _stop: threading.Event) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patched:
            patched.setattr(Executor, "run", broken)
            with pytest.raises(ZeroDivisionError):
                run_saga_sync(Cake, {}, key="C-1", timeout=TIMEOUT)
        assert run_saga_sync(Cake, {}, key="C-1")["last"] == "bake"


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("saga ")]


def run_until_it_bakes(key: str) -> None:
    """Time is up as soon as the second step runs."""

    def clock() -> float:
        return 9e9 if "bake" in Cake.calls else 0.0

    def sleep(_: float) -> None:
        until(lambda: "bake" in Cake.calls)

    timing = replace(QUICK, grace=0.02, unwell_patience=0.0)
    LocalRunner(timing=timing, clock=clock, sleep=sleep).run(Cake, {}, key=key, timeout=1)


class TestPlaces:
    def test_are_given_back(self) -> None:
        semaphore = places(1)
        for _ in range(3):
            LocalRunner(places=semaphore).run(Cake, {}, key=None, timeout=TIMEOUT)
        assert semaphore.acquire(blocking=False)

    def test_without_one_a_consumer_runs_it(self) -> None:
        runner = LocalRunner(places=places(0))
        with working():
            assert runner.run(Cake, {}, key=None, timeout=TIMEOUT)["last"] == "bake"


class TestMaxConcurrent:
    def test_delays_it(self, register: Register) -> None:
        class Oven(SagaClass):
            saga_name = "oven"

            @trigger(source="oven.heat", max_concurrent=1)
            def on_heat(self, event: Context) -> Context:
                return event

            @action("heat")
            def heat(self, _: Context) -> Context:
                return {"hot": True}

        register(Oven)
        other = begin("oven", key="O-1")
        claims.claim(
            worker="other", limit=1, lease=timedelta(minutes=1), at_most={"oven": 1}, only=other
        )
        with pytest.raises(SagaUnfinished):
            run_saga_sync(Oven, {}, key="O-2", timeout=0.2)
        until(lambda: not workers())
        Saga.objects.filter(id=other).update(status="completed")
        assert run_saga_sync(Oven, {}, key="O-2", timeout=TIMEOUT)["hot"] is True


class TestAnOutage:
    def test_is_waited_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real, asked = Saga.objects.get, []

        def get(**which: Any) -> Saga:
            asked.append(which)
            if len(asked) < 3:
                raise OperationalError("the server is away")
            return real(**which)

        monkeypatch.setattr(Saga.objects, "get", get)
        assert run_saga_sync(Cake, {}, timeout=TIMEOUT)["last"] == "bake"

    def test_is_told_of_when_time_is_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def get(**_: Any) -> Saga:
            raise OperationalError("the server is away")

        monkeypatch.setattr(Saga.objects, "get", get)
        with pytest.raises(OperationalError, match="away"):
            run_saga_sync(Cake, {}, timeout=0)


class TestRefusals:
    def test_inside_a_transaction(self) -> None:
        with transaction.atomic(), pytest.raises(CannotRunHere, match="transaction"):
            run_saga_sync(Cake, {})
        assert not Saga.objects.exists()

    def test_where_an_event_loop_runs(self) -> None:
        async def view() -> None:
            run_saga_sync(Cake, {})

        with pytest.raises(CannotRunHere, match="event loop"):
            asyncio.run(view())
        assert not Saga.objects.exists()

    def test_a_class_that_is_not_registered(self) -> None:
        class Stranger(Cake):
            saga_name = "stranger"

        class Impostor(Cake):
            saga_name = "cake"

        for stranger in (Stranger, Impostor, SagaClass):
            with pytest.raises(SagaDefinitionError, match="is not registered"):
                run_saga_sync(stranger, {})
        assert not Saga.objects.exists()

    def test_a_context_that_the_journal_cannot_keep(self) -> None:
        with pytest.raises(UnstorableValue, match="'when'"):
            run_saga_sync(Cake, {"when": object()})
        assert not Saga.objects.exists()


class TestTheContextSoFar:
    def test_of_one_that_has_not_begun(self) -> None:
        saga = Saga.objects.get(id=begin("cake", one=1))
        assert final_context(saga) == {"one": 1, "saga_id": str(saga.id)}

    def test_a_step_that_failed_adds_nothing(self) -> None:
        begin("cake", key="C-1")
        (dead,) = claims.claim(worker="dead", limit=1, lease=timedelta(0))
        entries.done(dead, "mix", "F", attempt=1, result={"dough": 7})
        entries.started(dead, "bake", "F", attempt=1)
        context = final_context(Saga.objects.get())
        assert context == {"saga_id": str(dead.id), "dough": 7}

    def test_later_results_win_and_compensations_come_last(self) -> None:
        begin("cake", key="C-1", last="begin")
        (dead,) = claims.claim(worker="dead", limit=1, lease=timedelta(0))
        for step, kind in (("mix", "C"), ("bake", "F"), ("mix", "F")):
            entries.done(dead, step, kind, attempt=1, result={"last": step + kind, step + kind: 1})
        saga = Saga.objects.get()
        now = timezone.now()
        for seconds, (step, kind) in enumerate([("mix", "C"), ("mix", "F"), ("bake", "F")]):
            saga.steps.filter(step=step, kind=kind).update(
                finished_at=now + timedelta(seconds=seconds)
            )
        context = final_context(saga)
        assert context["last"] == "mixC"
        assert list(context) == ["last", "saga_id", "mixF", "bakeF", "mixC"]


class TestWhatTheResultHolds:
    def test_every_key_of_the_users_own(self) -> None:
        Cake.script["mix"] = lambda _: {"__typename": "Cake", "__mix": 1, "_own": 2}
        result = run_saga_sync(Cake, {"__schema": "v1"}, key="C-1")
        assert {"__typename", "__mix", "_own", "__schema"} <= result.keys()
        assert not {key for key in result if key.endswith("_completed")}

    @pytest.mark.parametrize("name", ["bake", "ice"])
    def test_nothing_that_would_be_lost(self, name: str) -> None:
        Cake.script[name] = lambda _: "CAKE-1"
        with pytest.raises(SagaFailed, match="returned 'CAKE-1' of type str"):
            run_saga_sync(Cake, {}, key="C-1")

    def test_a_moment_as_the_step_returned_it(self) -> None:
        at = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
        Cake.script["bake"] = lambda _: {"at": at}
        result = run_saga_sync(Cake, {}, key="C-1")
        assert (result["at"].tzinfo, result["at"].fold) == (at.tzinfo, 1)


@pytest.mark.parametrize("key", ["", "k" * 256, "a\0b", "\ud800", 7])
def test_a_key_that_is_none(key: Any) -> None:
    with pytest.raises(ValueError, match="must be a text of 1 to 255 characters"):
        run_saga_sync(Cake, {}, key=key)


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_a_timeout_that_is_none(timeout: float) -> None:
    with pytest.raises(ValueError, match="give seconds from 0 on, or None"):
        run_saga_sync(Cake, {}, timeout=timeout)


def test_a_saga_made_by_hand() -> None:
    with pytest.raises(SagaDefinitionError, match="made by hand"):
        run_saga_sync(SagaClass(name="trip"), {})
