"""Workers that die with a saga: how many it may lose, what counts, and what forgives them."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest
from django.core.management import call_command

from saga_runtime.backoff import Backoff
from sagas import Ending, SagaOutcome, StepRejected
from sagas.definition.hooks import Hook
from sagas.errors import LeaseLost
from sagas.journal import claims, writing
from sagas.journal.entries import Entry, Wait
from sagas.models import ACTIVE, Saga
from sagas.run.timing import Timing
from sagas.worker.executor import MAX_TAKEOVERS, Executor
from tests.unit.sagas import journal_entries as entries
from tests.unit.sagas.saga_running import QUICK, Register, begin, is_ended, working
from tests.unit.sagas.scripted_sagas import (
    Part,
    Script,
    chain,
    claimed_by,
    failing,
    failures_of,
    raising,
)
from tests.unit.waiting import in_thread, until

pytestmark = pytest.mark.django_db(transaction=True)

SetHook = Callable[[str, Hook], None]
MOST = 2


@pytest.fixture(autouse=True)
def _tour(register: Register, script: Script) -> None:
    register(script.saga("tour", *chain(Part("fly"), Part("stay", external=True))))


@pytest.fixture
def parked(on_park: SetHook) -> list[SagaOutcome]:
    seen: list[SagaOutcome] = []
    on_park("tour", seen.append)
    return seen


@contextmanager
def a_worker(most: int = MOST, *, timing: Timing = QUICK) -> Iterator[Executor]:
    worker = Executor(concurrency=4, timing=timing, max_takeovers=most)
    with in_thread(worker.run):
        yield worker


def work(saga: UUID, *, most: int = MOST) -> Saga:
    with a_worker(most):
        until(lambda: is_ended(saga))
    return Saga.objects.get(id=saga)


def takeovers() -> int:
    return Saga.objects.get().takeovers


def dying(times: int) -> None:
    """Workers claim the one saga and die at once."""
    for n in range(times):
        claimed_by(f"dead {n}")


class TestLosingWorkers:
    def test_up_to_the_limit_it_is_run(self, parked: list[SagaOutcome]) -> None:
        saga = begin("tour")
        dying(MOST)  # the claim after these is the second takeover
        assert work(saga).status == "completed"
        assert parked == []

    def test_one_more_parks_it_with_a_reason(
        self, script: Script, parked: list[SagaOutcome], on_finish: SetHook
    ) -> None:
        on_finish("tour", parked.append)
        saga = begin("tour", seat="1A")
        dying(MOST + 1)
        found = work(saga)
        assert (found.status, found.failure) == ("parked", "")
        assert f"{MOST + 1} workers in a row died" in found.park_reason
        assert script.calls == []
        (outcome,) = parked
        assert (outcome.ending, outcome.reason) == (Ending.PARKED, found.park_reason)
        assert outcome.context["seat"] == "1A"

    def test_a_step_that_kills_its_worker_is_not_tried_for_ever(self, script: Script) -> None:
        saga = begin("tour")
        for n in range(1, MOST + 2):
            dead = claimed_by(f"dead {n}")
            if n == 1:
                entries.done(dead, "fly", "F", attempt=1, result={})
            entries.started(dead, "stay", "F", attempt=n)
            assert takeovers() == n - 1
        assert work(saga).status == "parked"
        assert script.calls == []
        # It has spent no retry.
        assert failures_of(saga)["stay:F"] == ("started", MOST + 1, 0)

    def test_in_compensation_too(self, script: Script, parked: list[SagaOutcome]) -> None:
        saga = begin("tour")
        dead = claimed_by("dead")
        entries.done(dead, "fly", "F", attempt=1, result={})
        entries.failed(dead, "stay", "F", attempt=1, error="full", decides=True)
        for n in range(1, MOST + 1):
            entries.started(claimed_by(f"dead {n}"), "fly", "C", attempt=n)
        found = work(saga)
        assert (found.status, found.failure, script.calls) == ("parked", "full", [])
        assert len(parked) == 1

    def test_the_limit_by_default(self) -> None:
        saga = begin("tour")
        Saga.objects.update(takeovers=MAX_TAKEOVERS, epoch=MAX_TAKEOVERS)
        assert work(saga, most=MAX_TAKEOVERS).status == "completed"


class TestProgress:
    @pytest.mark.parametrize(
        "ends", ["done locally", "done", "failed", "unknown"], ids=lambda ends: ends
    )
    def test_an_attempt_that_ends_forgives(self, ends: str) -> None:
        begin("tour")
        dying(MOST)
        held = claimed_by("w")
        assert (takeovers(), held.takeovers) == (MOST, MOST)
        match ends:
            case "done locally":
                entries.do_locally(held, "fly", work=dict)
            case "done":
                entries.done(held, "stay", "F", attempt=1, result={})
            case _:
                entries.failed(held, "stay", "F", attempt=1, error="no", unknown=ends == "unknown")
        assert takeovers() == 0

    def test_one_that_only_starts_does_not(self) -> None:
        begin("tour")
        dying(MOST)
        entries.started(claimed_by("w"), "stay", "F", attempt=1)
        assert takeovers() == MOST

    def test_a_stale_workers_does_not(self) -> None:
        begin("tour")
        dying(MOST)
        stale = claimed_by("stale")
        claimed_by("next")
        with pytest.raises(LeaseLost):
            entries.done(stale, "stay", "F", attempt=1, result={})
        with pytest.raises(LeaseLost):
            entries.do_locally(stale, "fly", work=dict)
        assert takeovers() == MOST + 1

    def test_with_some_progress_each_time_it_gets_to_its_end(
        self, register: Register, script: Script
    ) -> None:
        names = [f"s{n}" for n in range(3 * MOST)]
        register(script.saga("long", *chain(*(Part(name) for name in names))))
        saga = begin("long")
        for n, name in enumerate(names[:-1]):
            dead = claimed_by(f"dead {n}")
            entries.done(dead, name, "F", attempt=1, result={})
        assert work(saga).status == "completed"
        assert script.calls == names[-1:]


class TestWhatIsNone:
    def test_a_release(self) -> None:
        begin("tour")
        for n in range(MOST + 3):
            claimed_by(f"w {n}", lease=60)
            claims.release(worker=f"w {n}")
        assert takeovers() == 0

    def test_a_worker_that_is_told_to_stop(self, script: Script) -> None:
        """Deploys, one after the other, while a step's backoff lasts."""
        timing = replace(QUICK, retry=Backoff(first=20.0, longest=30.0), longest_rest=1000.0)
        script.acts["stay"] = failing(*[ConnectionError("away")] * 2)
        saga = begin("tour")
        for n in (1, 2):
            with a_worker(timing=timing):
                until(lambda n=n: failures_of(saga).get("stay:F") == ("unknown", n, n))  # type: ignore[misc]
        assert takeovers() == 0
        assert work(saga).status == "completed"

    def test_the_end_of_a_wait(self) -> None:
        begin("tour")
        for n in range(MOST + 3):
            held = claimed_by(f"w {n}", lease=60)
            writing.write([Entry(saga=held, changes=(Wait(0.0),))])
        assert takeovers() == 0

    def test_the_first_claim(self) -> None:
        begin("tour")
        claimed_by("w")
        assert takeovers() == 0


def test_taking_all_leases_away_counts_one_and_only_of_those_that_were_held() -> None:
    begin("tour")
    for n in range(MOST + 1):
        assert claimed_by(f"dead {n}", lease=3600).takeovers == n
        assert claims.release_all() == 1
        assert claims.release_all() == 0
        assert takeovers() == n + 1
    saga = Saga.objects.get().id
    assert work(saga).status == "parked"


def test_a_retry_starts_the_count_anew(script: Script) -> None:
    saga = begin("tour")
    dying(MOST + 1)
    assert work(saga).status == "parked"
    call_command("sagas", "retry", str(saga), "--why", "the memory leak is fixed")
    assert takeovers() == 0
    dying(MOST)
    found = work(saga)
    assert (found.status, found.takeovers) == ("completed", 0)


def test_what_kills_them_in_one_saga_costs_no_other(script: Script) -> None:
    saga = begin("tour")
    dying(MOST + 1)
    other = begin("tour", key="K-2")
    with a_worker():
        until(lambda: Saga.objects.get(id=other).status == "completed")
        until(lambda: Saga.objects.get(id=saga).status == "parked")
    assert Saga.objects.get(id=other).takeovers == 0


def test_a_cancel_of_one_that_is_parked_for_it_undoes_what_is_done(script: Script) -> None:
    saga = begin("tour")
    entries.done(claimed_by("dead"), "fly", "F", attempt=1, result={})
    dying(MOST + 1)
    assert work(saga).status == "parked"
    call_command("sagas", "cancel", str(saga), "--why", "not worth it")
    found = work(saga)
    assert (found.status, found.takeovers, script.calls) == ("rolled_back", 0, ["unfly"])


def test_a_saga_runs_beside_others_until_it_has_cost_half_of_the_limit(script: Script) -> None:
    """Workers that are killed for other reasons must not leave nothing but suspects."""
    begin("tour")
    claim = partial(claims.claim, limit=9, lease=timedelta(0), suspect_from=4)
    for n in range(4):
        assert [each.takeovers for each in claim(worker=f"w {n}")] == [n]
    assert claim(worker="one too many") == []
    alone = partial(claims.claim_suspect, worker="w", lease=timedelta(0))
    assert alone(suspect_from=5) == []
    assert [each.takeovers for each in alone(suspect_from=4)] == [4]
    assert Executor(concurrency=1, max_takeovers=8).suspect_from == 4
    assert Executor(concurrency=1, max_takeovers=2).suspect_from == 2


def test_those_of_a_worker_that_works_are_left_alone(script: Script) -> None:
    script.acts["stay"] = raising(StepRejected("full"))
    saga = begin("tour")
    with working():
        until(lambda: Saga.objects.get(id=saga).status == "rolled_back")
    assert takeovers() == 0


@pytest.mark.parametrize("pivot", [False, True])
def test_a_local_step_of_an_older_attempt_writes_nothing(*, pivot: bool) -> None:
    begin("tour")
    held = claimed_by("w")
    entries.started(held, "fly", "F", attempt=2)
    with pytest.raises(LeaseLost):
        entries.do_locally(held, "fly", work=dict, pivot=pivot)


def test_a_suspect_that_hangs_is_alone_for_no_longer_than_a_lease(
    register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others would wait for it as long as it hangs."""
    release = threading.Event()
    script = Script()
    register(
        script.saga("stuck", Part("hang", external=True, timeout=60)),
        script.saga("well", Part("go")),
    )

    async def hang(_: object) -> None:
        while not release.is_set():  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0.01)

    script.acts["hang"] = hang
    stuck = begin("stuck")
    Saga.objects.filter(id=stuck).update(takeovers=5)
    with working(lease=1.5):
        until(lambda: "hang" in script.calls)
        well = begin("well", key="W-1")
        until(lambda: is_ended(well))
        assert Saga.objects.filter(id=stuck, status__in=ACTIVE).exists()
        release.set()
        until(lambda: is_ended(stuck))
