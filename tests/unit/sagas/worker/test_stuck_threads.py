"""Calls that never come back, and steps that wait for a thread."""

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from saga_runtime.allowance import Allowance
from sagas import call_in_thread
from sagas.models import Saga, SagaStep
from sagas.worker.executor import Executor
from tests.unit.sagas.saga_running import QUICK, Context, Register, begin, is_ended
from tests.unit.sagas.scripted_sagas import Part, Script, failures_of
from tests.unit.waiting import in_thread, until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What hangs until it is set."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def hanging(register: Register, script: Script, release: threading.Event) -> None:
    """`stuck` hangs in a thread beyond its timeout; `call` calls something there."""

    async def hang(_: Context) -> None:
        await call_in_thread(release.wait)

    async def call(_: Context) -> None:
        await call_in_thread(time.monotonic)

    script.acts |= {"hang": hang, "hold": hang, "call": call}
    one: dict[str, Any] = {"external": True, "max_retries": 0}
    register(
        script.saga("stuck", Part("hang", timeout=0.1, **one)),
        script.saga("holding", Part("hold", timeout=60, **one)),
        script.saga("calling", Part("call", timeout=0.2, **one)),
    )


def worker(*, threads: int, signs: list[float] | None = None) -> Executor:
    def alive() -> None:
        if signs is not None:
            signs.append(time.monotonic())

    return Executor(
        concurrency=8,
        timing=replace(QUICK, lease=30.0, grace=5.0),
        call_threads=threads,
        alive=alive,
    )


@pytest.mark.usefixtures("hanging")
class TestStuckThreads:
    def test_are_replaced(self) -> None:
        stuck = [begin("stuck", key=f"S-{n}") for n in range(3)]
        with in_thread(worker(threads=3).run):
            until(lambda: is_ended(*stuck))
            later = [begin("calling", key=f"L-{n}") for n in range(4)]
            until(lambda: is_ended(*later))
        assert {*Saga.objects.filter(name="stuck").values_list("status", flat=True)} == {
            "rolled_back"
        }
        assert [Saga.objects.get(id=each).status for each in later] == ["completed"] * 4

    def test_a_worker_with_no_other_says_so_hands_over_and_recovers(
        self, release: threading.Event, caplog: pytest.LogCaptureFixture
    ) -> None:
        signs: list[float] = []
        executor = worker(threads=1, signs=signs)
        stuck = [begin("stuck", key=f"S-{n}") for n in range(2)]
        with in_thread(executor.run):
            until(lambda: is_ended(*stuck) and "this worker is unwell" in caplog.text)
            later = begin("calling", key="later")
            seen = len(signs)
            claimed_never = time.monotonic() + 0.5
            until(lambda: time.monotonic() > claimed_never)
            assert Saga.objects.get(id=later).epoch == 0
            assert len(signs) == seen
            release.set()
            until(lambda: is_ended(later))
        assert Saga.objects.get(id=later).status == "completed"
        assert [r.levelname for r in caplog.records if "unwell" in r.message] == ["ERROR"]

    def test_one_that_waits_for_a_thread_then_is_left_to_another_worker(
        self, release: threading.Event
    ) -> None:
        """It has spent no retry, and no takeover: its worker is alive."""
        stuck = [begin("stuck", key=f"S-{n}") for n in range(2)]
        with in_thread(worker(threads=1).run):
            waiting = begin("calling", key="waits")
            until(lambda: is_ended(*stuck))
            until(lambda: is_ended(waiting) or not Saga.objects.get(id=waiting).worker)
            with in_thread(worker(threads=1).run):
                until(lambda: is_ended(waiting))
            release.set()
        found = Saga.objects.get(id=waiting)
        assert (found.status, found.takeovers) == ("completed", 0)
        assert failures_of(waiting)["call:F"][2] == 0


@pytest.mark.usefixtures("hanging")
def test_waiting_for_a_thread_takes_none_of_the_steps_time(release: threading.Event) -> None:
    holding = begin("holding", key="H")
    with in_thread(worker(threads=1).run):
        until(lambda: SagaStep.objects.filter(saga=holding, status="started").exists())
        calling = begin("calling", key="C")
        until(lambda: SagaStep.objects.filter(saga=calling, status="started").exists())
        its_timeout_thrice = time.monotonic() + 0.6
        until(lambda: time.monotonic() > its_timeout_thrice)
        assert not is_ended(calling)
        release.set()
        until(lambda: is_ended(holding, calling))
    assert Saga.objects.get(id=calling).status == "completed"
    assert failures_of(calling)["call:F"] == ("done", 1, 0)


class TestAnAllowance:
    def test_stands_still_while_one_waits_and_not_for_the_deadline(self) -> None:
        now = [0.0]
        allowance = Allowance(10, at_most=30, clock=lambda: now[0])
        now[0] = 4
        assert allowance.left() == 6
        with allowance.waiting():
            now[0] = 9
            with allowance.waiting():
                now[0] = 14
            assert allowance.left() == 6
            now[0] = 26
            assert allowance.left() == 4  # until the deadline
        assert allowance.left() == 4
        now[0] = 31
        assert allowance.left() == -1

    def test_without_a_limit_has_none(self) -> None:
        allowance = Allowance(None)
        assert allowance.left() is None
        assert allowance.pause() is None
        with allowance.waiting():
            assert allowance.left() is None


def test_without_a_worker_a_call_goes_to_any_thread() -> None:
    async def main() -> str:
        return await call_in_thread(lambda: threading.current_thread().name)

    assert asyncio.run(main()) != threading.main_thread().name
