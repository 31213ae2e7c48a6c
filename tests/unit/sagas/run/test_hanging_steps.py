"""Local steps and hooks that hang in Python, and workers that have lost their threads to them."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection

from brokers import broker_from_url
from saga_runtime.database_threads import CallHangs, Threads
from saga_runtime.event_loop import run_loop
from saga_runtime.hang_watch import Watch
from sagas import call_in_thread
from sagas.definition.hooks import Hook, SagaOutcome
from sagas.errors import SagaParked, WorkerUnwell
from sagas.journal import sql
from sagas.models import Saga, SagaStatus
from sagas.run.timing import Timing
from sagas.worker import service
from sagas.worker.executor import Executor
from sagas.worker.run_here import LocalRunner
from sagas.worker.service import SagaService
from tests.unit.sagas.saga_running import (
    QUICK,
    Context,
    Register,
    attempts_of,
    begin,
    is_ended,
    journal_of,
)
from tests.unit.sagas.scripted_sagas import Part, Script
from tests.unit.waiting import TIMEOUT, errors, in_thread, until

pytestmark = pytest.mark.django_db(transaction=True)

LONG = 100.0  # seconds, of which a fast machine takes some: leases and limits run out


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What hangs until it is set."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def script(release: threading.Event) -> Script:
    """`hang` hangs in its thread, and makes no statement."""
    found = Script()

    def hang(_: Context) -> None:
        release.wait(LONG)

    found.acts["hang"] = hang
    return found


HANGS_SOON = replace(QUICK, lease=30.0, grace=0.2, hang_margin=0.1)


UNWELL_SOON = replace(HANGS_SOON, unwell_patience=0.2)


def worker(timing: Timing = HANGS_SOON, **options: Any) -> Executor:
    return Executor(concurrency=8, timing=timing, **options)


def let_the_server_end_it_soon() -> None:
    """Where its transaction pauses; otherwise nobody else gets the saga's row for some seconds."""
    sql.run("SET LOCAL idle_in_transaction_session_timeout = '200ms'", [])


@pytest.mark.on_postgresql  # on SQLite the step's transaction holds up every other
class TestALocalStep:
    def test_is_given_up_and_its_saga_alone(
        self,
        register: Register,
        script: Script,
        release: threading.Event,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        register(script.saga("stuck", Part("hang", timeout=0.2)), script.saga("well", Part("go")))
        stuck = begin("stuck", key="S-1")
        with in_thread(worker(journal_threads=2).run):
            until(lambda: errors(caplog), timeout=LONG)
            well = begin("well", key="W-1")
            until(lambda: is_ended(well), timeout=LONG)
            [line] = errors(caplog)
            assert line.startswith("stuck S-1: hang does not come back")
        # Neither failed nor handed over: what hangs may still commit under this epoch.
        found = Saga.objects.get(id=stuck)
        assert (found.status, found.epoch, found.failure) == ("running", 1, "")
        assert found.worker != ""
        assert journal_of(stuck) == {}
        release.set()

    def test_is_taken_up_by_another_when_the_lease_has_run_out(
        self, register: Register, script: Script, release: threading.Event
    ) -> None:
        register(script.saga("stuck", Part("hang", timeout=0.2), Part("go", after=("hang",))))
        stuck = begin("stuck", key="S-1")
        with in_thread(worker(replace(HANGS_SOON, lease=1.0), journal_threads=2).run) as stop:
            until(lambda: Saga.objects.get(id=stuck).epoch >= 2, timeout=LONG)
            stop.set()
        release.set()
        script.acts["hang"] = lambda _: None
        with in_thread(worker().run):
            until(lambda: is_ended(stuck), timeout=LONG)
        found = Saga.objects.get(id=stuck)
        assert found.status == SagaStatus.COMPLETED
        assert {attempt.status for attempt in attempts_of(stuck)} == {"done"}

    def test_that_hangs_each_time_parks_in_the_end(
        self, register: Register, script: Script
    ) -> None:
        register(script.saga("stuck", Part("hang", timeout=0.1)))
        stuck = begin("stuck", key="S-1")
        with in_thread(
            worker(replace(HANGS_SOON, lease=0.3), journal_threads=8, max_takeovers=2).run
        ):
            until(lambda: is_ended(stuck), timeout=LONG)
        found = Saga.objects.get(id=stuck)
        assert found.status == SagaStatus.PARKED
        assert "workers in a row died or stalled with it" in found.park_reason

    def test_that_asks_the_database_now_and_then_does_not_hang(
        self,
        register: Register,
        script: Script,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def ask(_: Context) -> None:
            for _n in range(8):
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_sleep(0.1)")

        script.acts["ask"] = ask
        register(script.saga("slow", Part("ask", timeout=60)))
        slow = begin("slow", key="S-1")
        with in_thread(worker(replace(HANGS_SOON, hang_margin=-59.6)).run):
            until(lambda: is_ended(slow), timeout=LONG)
        assert Saga.objects.get(id=slow).status == SagaStatus.COMPLETED
        assert errors(caplog) == []


@pytest.mark.on_postgresql  # on SQLite the hook's transaction holds up every other
def test_a_hook_that_hangs_leaves_the_end_to_another_worker(  # noqa: PLR0917 - fixtures
    register: Register,
    script: Script,
    release: threading.Event,
    on_finish: Callable[[str, Hook], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    called = []

    def hook(_: object) -> None:
        called.append("finish")
        if len(called) == 1:
            let_the_server_end_it_soon()
            release.wait(LONG)

    on_finish("tour", hook)
    register(script.saga("tour", Part("go")))
    tour = begin("tour", key="T-1")
    timing = replace(HANGS_SOON, lease=1.0, hook_limit=0.1)
    with in_thread(worker(timing, journal_threads=2).run):
        until(lambda: errors(caplog), timeout=LONG)
        assert errors(caplog)[0].startswith("tour T-1: the function at its end does not come back")
        until(lambda: is_ended(tour), timeout=LONG)
    assert called == ["finish", "finish"]
    assert Saga.objects.get(id=tour).status == SagaStatus.COMPLETED


@pytest.mark.on_postgresql
@pytest.mark.usefixtures("one_by_one")
def test_a_hook_holds_the_sagas_row_for_a_minute_at_most(
    register: Register, script: Script, on_finish: Callable[[str, Hook], None]
) -> None:
    """Where nothing else limits it, as in a project of somebody else's or behind a pooler."""
    limits: list[str] = []

    def hook(_: object) -> None:
        limits.append(sql.run("SHOW idle_in_transaction_session_timeout", [])[0][0])

    def limit(setting: str) -> Callable[[Context], None]:
        def set_it(_: Context) -> None:
            sql.run(f"SET idle_in_transaction_session_timeout = '{setting}'", [])

        return set_it

    on_finish("tour", hook)
    register(script.saga("tour", Part("go")))
    for setting in ("0", "7s"):
        script.acts["go"] = limit(setting)
        tour = begin("tour", key=setting)
        with in_thread(worker(journal_threads=1).run):  # one connection, for step and hook
            until(partial(is_ended, tour), timeout=LONG)
    assert limits == ["1min", "7s"]


@pytest.mark.on_postgresql
def test_an_on_park_hook_that_always_hangs_is_left_out_in_the_end(
    register: Register,
    script: Script,
    release: threading.Event,
    on_park: Callable[[str, Hook], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hook(_: SagaOutcome) -> None:
        let_the_server_end_it_soon()
        release.wait(LONG)

    on_park("tour", hook)
    register(script.saga("tour", Part("go")))
    tour = begin("tour")
    Saga.objects.filter(id=tour).update(version=99)  # which nobody has
    timing = replace(HANGS_SOON, lease=0.3, hook_limit=0.0)
    with in_thread(worker(timing, journal_threads=8, max_takeovers=2).run):
        until(lambda: is_ended(tour), timeout=LONG)
    assert Saga.objects.get(id=tour).status == SagaStatus.PARKED


class TestAWorkerWithoutThreads:
    def test_ends_though_a_call_comes_back_while_it_ends(
        self,
        register: Register,
        script: Script,
        release: threading.Event,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It claims no more by then: one that was taken for well would run nothing, for ever."""
        finish = Executor._finish_running

        async def come_back_first(executor: Executor) -> None:
            release.set()
            while executor._health.is_exhausted:  # noqa: ASYNC110 - a thread ends it
                await asyncio.sleep(0.01)
            await finish(executor)

        async def call(_: Context) -> None:
            await call_in_thread(release.wait, TIMEOUT * 2)

        monkeypatch.setattr(Executor, "_finish_running", come_back_first)
        script.acts["call"] = call
        register(script.saga("tour", Part("call", external=True, max_retries=0, timeout=0.1)))
        for n in range(2):
            begin("tour", key=f"T-{n}")
        with pytest.raises(WorkerUnwell, match="tour T-"):
            worker(call_threads=1, timing=UNWELL_SOON).run(threading.Event())

    @pytest.mark.on_postgresql  # on SQLite it would wait for the step's transaction first
    def test_ends_by_itself_and_names_the_steps(
        self, register: Register, script: Script, caplog: pytest.LogCaptureFixture
    ) -> None:
        register(script.saga("stuck", Part("hang", timeout=0.1)))
        begin("stuck", key="S-1")
        with pytest.raises(WorkerUnwell, match="stuck S-1: hang"):
            worker(journal_threads=1, timing=UNWELL_SOON).run(threading.Event())
        assert any("this worker is unwell" in line for line in errors(caplog))
        # Its lease runs out, so that the takeover counts: it is not handed over.
        assert Saga.objects.get(key="S-1").worker != ""

    def test_ends_by_itself_where_calls_hang(
        self, register: Register, script: Script, release: threading.Event
    ) -> None:
        async def call(_: Context) -> None:
            await call_in_thread(release.wait, TIMEOUT * 2)

        script.acts["call"] = call
        register(script.saga("tour", Part("call", external=True, max_retries=0, timeout=0.1)))
        tours = [begin("tour", key=f"T-{n}") for n in range(2)]
        with pytest.raises(WorkerUnwell, match=r"tour T-[01]: call; tour T-[01]: call"):
            worker(call_threads=1, timing=UNWELL_SOON).run(threading.Event())
        assert all(is_ended(tour) for tour in tours)  # their retries were spent

    @pytest.mark.on_postgresql
    def test_goes_on_where_a_call_comes_back_in_time(
        self,
        register: Register,
        script: Script,
        release: threading.Event,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        register(script.saga("stuck", Part("hang", timeout=0.1)), script.saga("well", Part("go")))
        begin("stuck", key="S-1")
        with in_thread(
            worker(journal_threads=1, timing=replace(HANGS_SOON, unwell_patience=60.0)).run
        ):
            until(lambda: any("this worker is unwell" in line for line in errors(caplog)))
            release.set()
            well = begin("well", key="W-1")
            until(lambda: is_ended(well), timeout=LONG)

    def test_counts_what_deaf_steps_have_left_behind(
        self,
        register: Register,
        script: Script,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        timing = replace(UNWELL_SOON, cancel_grace=0.05, loop_end=0.1)
        is_over = threading.Event()

        async def deaf(_: Context) -> None:
            while not is_over.is_set():
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    continue

        script.acts["deaf"] = deaf
        register(
            script.saga("tour", Part("deaf", external=True, max_retries=0, timeout=0.1)),
        )
        for n in range(2):
            begin("tour", key=f"T-{n}")
        with pytest.raises(WorkerUnwell, match=r"tour T-[01]: deaf"):
            worker(call_threads=1, timing=timing).run(threading.Event())
        is_over.set()
        assert any(
            line.startswith("tour T-0: ") and "left behind" in line for line in errors(caplog)
        )

    def test_ends_its_command_in_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def run(*_: object, **__: object) -> None:
            raise WorkerUnwell("this worker ends, unwell")

        monkeypatch.setattr(SagaService, "run", run)
        monkeypatch.setattr("sagas.management.commands.run_saga_consumer.require_shared", id)
        monkeypatch.setattr(
            "sagas.management.commands.run_saga_consumer.stop_on_signals", threading.Event
        )
        with pytest.raises(CommandError, match="this worker ends, unwell"):
            call_command("run_saga_consumer")


@pytest.mark.on_postgresql
def test_a_saga_that_runs_here_and_hangs_each_time_parks_in_the_end(
    register: Register, script: Script, settings: Any
) -> None:
    settings.SAGA_MAX_TAKEOVERS = 2
    timing = replace(HANGS_SOON, lease=0.3, grace=2.0, unwell_patience=0.0)
    stuck = script.saga("stuck", Part("hang", timeout=0.1))
    register(stuck)
    with pytest.raises(SagaParked, match="workers in a row died or stalled with it"):
        LocalRunner(timing=timing).run(stuck, {}, key="S-1", timeout=60)


@pytest.mark.on_postgresql
@pytest.mark.parametrize(("size", "is_enough"), [(24, False), (25, True)])
def test_a_pool_holds_a_connection_for_each_thread_and_those_in_their_place(
    monkeypatch: pytest.MonkeyPatch, size: int, *, is_enough: bool
) -> None:
    monkeypatch.setattr(service, "pool_size", lambda _pool: size)
    broker = broker_from_url("memory://")
    if is_enough:
        SagaService.from_settings(broker, concurrency=1)
    else:
        with pytest.raises(ImproperlyConfigured, match="holds 24, a consumer needs 25"):
            SagaService.from_settings(broker, concurrency=1)


class TestALoop:
    def test_ends_beside_a_thread_that_hangs(self, release: threading.Event) -> None:
        begun = threading.Event()

        def hang() -> None:
            begun.set()
            release.wait(LONG)

        async def main() -> str:
            hanging.append(asyncio.create_task(asyncio.to_thread(hang)))
            while not begun.is_set():  # noqa: ASYNC110 - a thread sets it
                await asyncio.sleep(0.001)
            return "done"

        hanging: list[asyncio.Task[None]] = []
        assert run_loop(main(), last_seconds=0.1) == "done"
        assert not release.is_set()

    def test_ends_beside_a_generator_that_does_not(self, release: threading.Event) -> None:
        async def deaf() -> AsyncIterator[int]:
            try:
                yield 1
            finally:
                while not release.is_set():  # noqa: ASYNC110 - as foreign code does
                    await asyncio.sleep(0.01)

        async def main() -> int:
            generators.append(deaf())
            return await anext(generators[0])

        generators: list[AsyncIterator[int]] = []
        assert run_loop(main(), last_seconds=0.1) == 1


class TestAWatch:
    def test_takes_a_call_that_makes_no_statement_for_one_that_hangs(self) -> None:
        now = [0.0]
        watch = Watch(10, clock=lambda: now[0])
        now[0] = 100
        assert watch.left() == 10  # it waits for a thread
        seen = []

        def call() -> None:
            now[0] += 4
            seen.append(watch.left())
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            seen.append(watch.left())
            now[0] += 11
            seen.append(watch.left())

        watch.call(call)
        assert seen == [6, 10, -1]

    def test_gives_the_call_up(self, release: threading.Event) -> None:
        threads = Threads(1, name="tests")

        async def main() -> None:
            await threads.run_watched(Watch(0.05), release.wait, TIMEOUT)

        with pytest.raises(CallHangs):
            asyncio.run(main())
        assert threads.is_exhausted
        release.set()
        until(lambda: not threads.is_exhausted)
        threads.close()
