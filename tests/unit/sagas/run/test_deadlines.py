"""Deadlines: undone before the pivot, parked after it."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.management import call_command
from django.utils import timezone
from sagaz.core.triggers import trigger

from brokers import Record
from saga_runtime.backoff import Backoff
from sagas import Ending, SagaDefinitionError, SagaOutcome, StepRejected, call_in_thread
from sagas.definition import discovery
from sagas.definition.hooks import Hook
from sagas.definition.identity import saga_id
from sagas.inbox import accepting
from sagas.models import ACTIVE, Saga
from sagas.run.timing import Timing
from tests.unit.sagas import journal_entries as entries
from tests.unit.sagas.saga_running import (
    HOURS,
    QUICK,
    Context,
    Register,
    begin,
    journal_of,
    run_to_end,
    working,
)
from tests.unit.sagas.scripted_sagas import (
    Part,
    Script,
    chain,
    claimed_by,
    failing,
    forever,
    raising,
)
from tests.unit.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

SetHook = Callable[[str, Hook], None]
PASSED = "its deadline has passed"


@pytest.fixture(autouse=True)
def outcomes(on_finish: SetHook, on_park: SetHook) -> list[SagaOutcome]:
    seen: list[SagaOutcome] = []
    on_finish("tour", seen.append)
    on_park("tour", seen.append)
    return seen


@pytest.fixture
def tour(register: Register, script: Script) -> None:
    parts = (
        Part("fly"),
        Part("stay", external=True, max_retries=5),
        Part("pay", external=True, pivot=True, max_retries=5),
        Part("thank", external=True, max_retries=5, timeout=0.1),
    )
    register(script.saga("tour", *chain(*parts)))


def begin_with(seconds: float, **context: Any) -> UUID:
    saga = begin("tour", **context)
    deadline = timezone.now() + timedelta(seconds=seconds)
    Saga.objects.filter(id=saga).update(deadline=deadline)
    return saga


def is_late() -> bool:
    """Tell whether the deadline of the saga that runs has passed."""
    deadline = Saga.objects.get(status__in=ACTIVE).deadline
    assert deadline is not None
    return timezone.now() > deadline


def run_late(script: Script, step: str, *, seconds: float = 0.3, timing: Timing = QUICK) -> Saga:
    """Run a saga whose deadline comes when this step has begun.

    Args:
        script: the saga's, whose calls are those of this saga afterwards.
        step: that must have begun. Where it has not, because the machine is slow, another saga runs
            with a later deadline.
        seconds: from the beginning to the deadline.
        timing: of the worker.
    """
    for number in range(4):
        script.calls.clear()
        saga = run_to_end(begin_with(seconds * 3**number, key=f"K-{number}"), timing=timing)
        if step in script.calls:
            return saga
    raise AssertionError(f"{step} never began before the deadline")


@pytest.mark.usefixtures("tour")
class TestBeforeThePivot:
    def test_before_the_first_step_nothing_is_done(
        self, script: Script, outcomes: list[SagaOutcome]
    ) -> None:
        saga = run_to_end(begin_with(-1))
        assert (saga.status, saga.failure, saga.cancelled) == ("rolled_back", PASSED, False)
        assert script.calls == []
        assert [(o.ending, o.reason, o.cancelled) for o in outcomes] == [
            (Ending.ROLLED_BACK, PASSED, False)
        ]

    @pytest.mark.usefixtures("one_by_one")
    def test_before_a_later_step_what_is_done_is_undone(self, script: Script) -> None:
        def fly(_: Context) -> None:
            until(is_late)

        script.acts["fly"] = fly
        saga = run_late(script, "fly")
        assert saga.failure == PASSED
        assert script.calls == ["fly", "unfly"]
        assert journal_of(saga.id)["fly:F"] == ("done", 1)

    def test_an_external_call_gets_no_longer_than_that(self, script: Script) -> None:
        """Of a step without a timeout of its own worth the name."""
        script.acts["stay"] = forever()
        saga = run_late(script, "stay")
        assert saga.deadline is not None
        assert timezone.now() - saga.deadline < timedelta(seconds=30)
        assert saga.status == "rolled_back"
        # What was interrupted may have happened.
        assert script.calls == ["fly", "stay", "unstay", "unfly"]
        assert journal_of(saga.id)["stay:F"] == ("unknown", 1)

    def test_during_a_backoff(self, script: Script) -> None:
        """It is over with the deadline, not with the backoff."""
        script.acts["stay"] = raising(ConnectionError("away"))
        saga = run_late(script, "stay", seconds=0.5, timing=replace(QUICK, retry=HOURS))
        assert (saga.status, saga.failure) == ("rolled_back", PASSED)
        assert script.calls == ["fly", "stay", "unstay", "unfly"]

    def test_while_it_waits_without_a_worker(self, script: Script) -> None:
        script.acts["stay"] = raising(ConnectionError("away"))
        with working(timing=replace(QUICK, retry=HOURS, longest_rest=0.05)):
            # On a slow machine the deadline may come first: then another one, with more time.
            for number in range(4):
                saga = begin_with(3.0**number, key=f"K-{number}")
                until(lambda: Saga.objects.get(id=saga).status in {"waiting", "rolled_back"})  # noqa: B023
                if Saga.objects.get(id=saga).status == "waiting":
                    break
            waiting = Saga.objects.get(id=saga)
            assert waiting.deadline is not None
            assert abs(waiting.next_run_at - waiting.deadline) < timedelta(seconds=0.5)
            until(lambda: Saga.objects.get(id=saga).status == "rolled_back")
        assert Saga.objects.get(id=saga).failure == PASSED

    def test_a_local_step_that_runs_is_let_finish_and_a_compensation_has_no_deadline(
        self, script: Script
    ) -> None:
        saga = begin_with(-60)
        entries.done(claimed_by("dead"), "fly", "F", attempt=1, result={})
        script.acts["unfly"] = failing(ConnectionError("1"), ConnectionError("2"))
        assert run_to_end(saga).status == "rolled_back"
        assert script.calls == ["unfly"] * 3

    def test_another_failure_stays_the_reason(self) -> None:
        saga = begin_with(-60)
        dead = claimed_by("dead")
        entries.failed(dead, "fly", "F", attempt=1, error="full", decides=True)
        assert run_to_end(saga).failure == "full"

    def test_in_time_it_is_as_if_there_were_none(self, script: Script) -> None:
        assert run_to_end(begin_with(60)).status == "completed"
        assert script.calls == ["fly", "stay", "pay", "thank"]


@pytest.mark.usefixtures("tour")
class TestPastThePivot:
    def late(self) -> UUID:
        saga = begin_with(-60)
        dead = claimed_by("dead")
        for step in ("fly", "stay"):
            entries.done(dead, step, "F", attempt=1, result={})
        entries.done(dead, "pay", "F", attempt=1, result={}, pivot=True)
        return saga

    def test_it_parks_and_undoes_nothing(self, script: Script, outcomes: list[SagaOutcome]) -> None:
        saga = run_to_end(self.late())
        assert (saga.status, saga.failure) == ("parked", "")
        assert saga.park_reason == f"{PASSED}, and thank is not done"
        assert script.calls == []
        assert [(o.ending, o.reason) for o in outcomes] == [(Ending.PARKED, saga.park_reason)]

    def test_a_pivot_that_has_begun_is_past_it(self, script: Script) -> None:
        script.acts["pay"] = raising(ConnectionError("away"))
        timing = replace(QUICK, retry=Backoff(first=0.5, longest=30.0))
        parked = run_late(script, "pay", timing=timing)
        assert (parked.status, parked.past_pivot) == ("parked", True)
        assert "pay is not done" in parked.park_reason
        assert "unstay" not in script.calls

    def test_a_call_is_not_cut_short(self, script: Script) -> None:
        """It has its own timeout only: the deadline must not leave a payment in doubt."""

        async def pay(_: Context) -> Context:
            await call_in_thread(until, is_late)
            return {"receipt": 7}

        script.acts["pay"] = pay
        saga = run_late(script, "pay")
        assert saga.status == "parked"
        assert journal_of(saga.id)["pay:F"] == ("done", 1)

    def test_after_a_retry_it_goes_on_without_a_deadline(self, script: Script) -> None:
        saga = run_to_end(self.late()).id
        call_command("sagas", "retry", str(saga), "--why", "late is better than never")
        assert Saga.objects.get(id=saga).deadline is None
        script.acts["thank"] = failing(ConnectionError("away"))
        assert run_to_end(saga).status == "completed"
        assert script.calls == ["thank", "thank"]


class TestDeclaring:
    def record(self) -> Record:
        headers = {
            "ce_specversion": "1.0",
            "ce_id": str(uuid4()),
            "ce_type": "tours.place",
            "ce_source": "/tests",
        }
        return Record(
            topic="tours",
            partition=0,
            offset=0,
            key=b"T-1",
            value=json.dumps({"tour": "T-1"}).encode(),
            headers=tuple((name, text.encode()) for name, text in headers.items()),
        )

    def placing(self) -> Any:
        return trigger(source="tours.place", idempotency_key="tour")(lambda _self, e: dict(e))

    @pytest.mark.parametrize("deadline", [None, timedelta(minutes=5)])
    def test_it_counts_from_the_command(
        self, deadline: timedelta | None, register: Register, script: Script
    ) -> None:
        register(script.saga("tour", Part("fly"), on_place=self.placing(), deadline=deadline))
        before = timezone.now()
        assert accepting.accept([self.record()], consumer="tests") == 1
        saga = Saga.objects.get(id=saga_id("tour", "T-1"))
        if deadline is None:
            assert saga.deadline is None
        else:
            assert saga.deadline is not None
            assert before + deadline <= saga.deadline <= timezone.now() + deadline
        # A second command does not put it off.
        accepting.accept([self.record()], consumer="tests")
        assert Saga.objects.get().deadline == saga.deadline

    def test_from_the_command_to_the_end(self, register: Register, script: Script) -> None:
        stay = Part("stay", external=True)
        soon = timedelta(seconds=0.2)
        register(script.saga("tour", stay, on_place=self.placing(), deadline=soon))
        script.acts["stay"] = forever()
        accepting.accept([self.record()], consumer="tests")
        assert run_to_end(saga_id("tour", "T-1")).status == "rolled_back"

    @pytest.mark.parametrize(
        "deadline", [5, 5.0, "5m", timedelta(0), -timedelta(seconds=1), True, timedelta]
    )
    def test_what_is_none_is_refused_at_start_up(self, deadline: object, script: Script) -> None:
        with pytest.raises(SagaDefinitionError, match=r"deadline is .* use a timedelta"):
            discovery.describe(script.saga("tour", Part("fly"), deadline=deadline))

    def test_a_rejection_is_not_mistaken_for_one(self, register: Register, script: Script) -> None:
        register(script.saga("tour", Part("fly")))
        script.acts["fly"] = raising(StepRejected("full"))
        assert run_to_end(begin_with(60)).failure == "full"
