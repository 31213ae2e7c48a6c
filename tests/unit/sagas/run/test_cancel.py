"""Cancels: at each instant of a saga's life, by a command, by a person, and against the pivot."""

import json
import random
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.utils import timezone
from sagaz.core.triggers import trigger

from brokers import Record
from orders.models import Product
from saga_runtime.backoff import Backoff
from saga_runtime.text import LONGEST_ERROR, cut
from sagas import Ending, SagaOutcome, StepRejected, call_in_thread, cancel_on
from sagas.crash_points import Point, observe
from sagas.definition.hooks import Hook
from sagas.definition.identity import saga_id
from sagas.errors import CancelRefused, HookFailed, UnknownSaga
from sagas.inbox import accepting
from sagas.journal import final_transaction, local_step, sql, writing
from sagas.journal.cancelling import request_cancel
from sagas.journal.entries import End, Entry, Fail, Wait
from sagas.models import (
    ACTIVE,
    InboxMessage,
    Intervention,
    RefusedCommand,
    Saga,
    SagaStep,
)
from tests.unit.sagas import journal_entries as entries
from tests.unit.sagas.saga_running import (
    HOURS,
    QUICK,
    Context,
    Register,
    Write,
    begin,
    journal_of,
    run_to_end,
    working,
)
from tests.unit.sagas.scripted_sagas import Part, Script, chain, claimed_by, forever, raising
from tests.unit.waiting import TIMEOUT, in_thread, until

pytestmark = pytest.mark.django_db(transaction=True)

SetHook = Callable[[str, Hook], None]


@pytest.fixture
def outcomes(on_finish: SetHook, on_park: SetHook) -> list[SagaOutcome]:
    seen: list[SagaOutcome] = []
    on_finish("tour", seen.append)
    on_park("tour", seen.append)
    return seen


@pytest.fixture
def plain(register: Register, script: Script) -> None:
    """Local, external, local; no pivot."""
    register(script.saga("tour", *chain(Part("fly"), Part("stay", external=True), Part("eat"))))


@pytest.fixture(params=[False, True], ids=["local pivot", "external pivot"])
def pivot_is_external(request: pytest.FixtureRequest, register: Register, script: Script) -> bool:
    is_external = bool(request.param)
    pay = Part("pay", external=is_external, pivot=True, max_retries=1)
    register(script.saga("tour", *chain(Part("fly"), pay, Part("thank"))))
    return is_external


def cancel(saga: UUID, reason: str = "changed my mind") -> Saga:
    return request_cancel(saga, who="ann", reason=reason)


def from_a_thread(saga: UUID) -> list[BaseException]:
    """The cancel, on a connection of its own; returns how it was refused."""
    refused: list[BaseException] = []

    def run() -> None:
        try:
            cancel(saga)
        except CancelRefused as error:
            refused.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    return refused


def at(point: Point, where: str, do: Callable[[], object]) -> Callable[[], None]:
    """Do it once, when the worker is there."""
    left = [do]

    def look(reached: Point, there: str) -> None:
        if reached is point and there.startswith(where) and left:
            left.pop()()

    return observe(look)


@pytest.fixture
def when() -> Iterator[Callable[[Point, str, Callable[[], object]], None]]:
    ends: list[Callable[[], None]] = []

    def observing(point: Point, where: str, do: Callable[[], object]) -> None:
        ends.append(at(point, where, do))

    yield observing
    for end in ends:
        end()


When = Callable[[Point, str, Callable[[], object]], None]


def is_cancelled(saga: Saga, outcomes: list[SagaOutcome]) -> None:
    """It was undone because it was asked for, and everybody was told so."""
    assert (saga.status, saga.failure, saga.cancelled) == ("rolled_back", "changed my mind", True)
    assert not saga.past_pivot
    (outcome,) = outcomes
    assert (outcome.ending, outcome.reason, outcome.cancelled) == (
        Ending.ROLLED_BACK,
        "changed my mind",
        True,
    )


@pytest.mark.usefixtures("plain")
class TestInTime:
    def test_before_it_is_claimed(self, script: Script, outcomes: list[SagaOutcome]) -> None:
        saga = begin("tour")
        cancel(saga)
        is_cancelled(run_to_end(saga), outcomes)
        assert script.calls == []

    @pytest.mark.usefixtures("one_by_one")
    def test_the_local_step_that_runs_wins(
        self, script: Script, outcomes: list[SagaOutcome], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        saga = begin("tour")
        real = local_step.do_locally

        def do_locally(*args: Any, **kwargs: Any) -> Any:
            if not script.calls:
                cancel(saga)
            return real(*args, **kwargs)

        monkeypatch.setattr(local_step, "do_locally", do_locally)
        is_cancelled(run_to_end(saga), outcomes)
        assert script.calls == ["fly", "unfly"]
        assert journal_of(saga) == {"fly:F": ("done", 1), "fly:C": ("done", 1)}

    @pytest.mark.usefixtures("one_by_one")
    def test_the_external_step_that_runs_wins(
        self, script: Script, outcomes: list[SagaOutcome]
    ) -> None:
        saga = begin("tour")

        async def stay(_: Context) -> Context:
            await call_in_thread(cancel, saga)
            return {"room": 5}

        seen: list[Any] = []
        script.acts |= {"stay": stay, "unstay": lambda ctx: seen.append(ctx["room"])}
        is_cancelled(run_to_end(saga), outcomes)
        assert script.calls == ["fly", "stay", "unstay", "unfly"]
        assert seen == [5]
        assert journal_of(saga)["stay:F"] == ("done", 1)

    @pytest.mark.usefixtures("one_by_one")
    def test_between_the_start_and_an_external_step(
        self, script: Script, outcomes: list[SagaOutcome]
    ) -> None:
        """After the worker has looked, before it says `started`: the step is not begun."""
        saga = begin("tour")
        real = writing.write

        def write(group: Any) -> Any:
            if any(e.step and e.step.status == "started" for e in group):
                cancel(saga)
            return real(group)

        is_cancelled(run_to_end(saga, write=write), outcomes)
        assert script.calls == ["fly", "unfly"]
        assert "stay:F" not in journal_of(saga)

    @pytest.mark.parametrize("with_hook", [True, False])
    @pytest.mark.usefixtures("one_by_one")
    def test_while_the_last_step_runs(
        self,
        with_hook: bool,  # noqa: FBT001
        script: Script,
        monkeypatch: pytest.MonkeyPatch,
        on_finish: SetHook,
    ) -> None:
        """No step follows that would look; all the same it was accepted."""
        outcomes: list[SagaOutcome] = []
        if with_hook:
            on_finish("tour", outcomes.append)
        saga = begin("tour")
        real = local_step.do_locally

        def do_locally(entry: Any, **kwargs: Any) -> Any:
            if entry.step.step == "eat" and entry.step.kind == "F":
                cancel(saga)
            return real(entry, **kwargs)

        monkeypatch.setattr(local_step, "do_locally", do_locally)
        ended = run_to_end(saga)
        assert (ended.status, ended.cancelled, ended.failure) == (
            "rolled_back",
            True,
            "changed my mind",
        )
        assert script.calls == ["fly", "stay", "eat", "uneat", "unstay", "unfly"]
        if with_hook:
            is_cancelled(ended, outcomes)

    @pytest.mark.parametrize("with_hook", [True, False])
    @pytest.mark.usefixtures("one_by_one")
    def test_before_the_end_is_written(
        self,
        with_hook: bool,  # noqa: FBT001
        script: Script,
        on_finish: SetHook,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        outcomes: list[SagaOutcome] = []
        if with_hook:
            on_finish("tour", outcomes.append)
        saga = begin("tour")
        left = [1]
        real_finish, real_write = final_transaction.finish, writing.write

        def once() -> None:
            if left:
                left.pop()
                cancel(saga)

        def finish(*args: Any, **options: Any) -> None:
            once()
            real_finish(*args, **options)

        def write(group: Any) -> Any:
            if any(isinstance(c, End) for e in group for c in e.changes):
                once()
            return real_write(group)

        monkeypatch.setattr(final_transaction, "finish", finish)
        ended = run_to_end(saga, write=write)
        assert not left
        assert (ended.status, ended.cancelled) == ("rolled_back", True)
        assert script.calls == ["fly", "stay", "eat", "uneat", "unstay", "unfly"]
        if with_hook:
            is_cancelled(ended, outcomes)

    @pytest.mark.parametrize("fails_again", [False, True])
    @pytest.mark.usefixtures("one_by_one")
    def test_behind_a_hook_that_has_failed(
        self,
        fails_again: bool,  # noqa: FBT001
        script: Script,
        on_finish: SetHook,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """What the hook said of the other end is no reason to park this one."""
        saga = begin("tour")
        asked: list[SagaOutcome] = []
        real_finish = final_transaction.finish

        def hook(outcome: SagaOutcome) -> None:
            asked.append(outcome)
            if outcome.ending is Ending.COMPLETED or fails_again:
                raise ValueError(f"not {outcome.ending}")

        def finish(*args: Any, **options: Any) -> None:
            try:
                real_finish(*args, **options)
            except HookFailed:
                if len(asked) == 1:  # its transaction, which holds the saga's row, is over
                    cancel(saga)
                raise

        on_finish("tour", hook)
        monkeypatch.setattr(final_transaction, "finish", finish)
        ended = run_to_end(saga)
        assert script.calls == ["fly", "stay", "eat", "uneat", "unstay", "unfly"]
        assert asked[0].ending is Ending.COMPLETED
        if fails_again:
            assert ended.status == "parked"
            assert "ValueError: not rolled_back" in ended.park_reason
        else:
            is_cancelled(ended, asked[1:])
            assert ended.park_reason == ""

    def test_decided_when_all_was_done_and_the_worker_dies(
        self, script: Script, outcomes: list[SagaOutcome]
    ) -> None:
        saga = begin("tour")
        dead = claimed_by("dead")
        for step in ("fly", "stay", "eat"):
            entries.done(dead, step, "F", attempt=1, result={})
        cancel(saga)
        writing.write([Entry(saga=dead, changes=(Fail("changed my mind", cancelled=True),))])
        entries.done(dead, "eat", "C", attempt=1, result={})
        is_cancelled(run_to_end(saga), outcomes)
        assert script.calls == ["unstay", "unfly"]

    def test_after_a_failed_attempt_it_is_not_tried_again_and_undone_too(
        self, script: Script, outcomes: list[SagaOutcome]
    ) -> None:
        saga = begin("tour")

        async def stay(_: Context) -> None:
            await call_in_thread(cancel, saga)
            raise ConnectionError("lost")

        script.acts["stay"] = stay
        is_cancelled(run_to_end(saga), outcomes)
        assert script.calls == ["fly", "stay", "unstay", "unfly"]

    def test_during_a_backoff(
        self,
        script: Script,
        outcomes: list[SagaOutcome],
        when: When,
    ) -> None:
        """One that rests in its worker: no further call is made to a provider."""
        timing = replace(QUICK, retry=Backoff(first=0.3, longest=30.0))
        saga = begin("tour")
        script.acts["stay"] = raising(ConnectionError("away"))
        when(Point.ATTEMPT_FAILED, "stay:F", lambda: from_a_thread(saga))
        is_cancelled(run_to_end(saga, timing=timing), outcomes)
        assert script.calls == ["fly", "stay", "unstay", "unfly"]

    def test_while_it_waits_for_an_hour_it_is_claimed_at_once(
        self, script: Script, outcomes: list[SagaOutcome]
    ) -> None:
        script.acts["stay"] = raising(ConnectionError("away"))
        saga = begin("tour")
        with working(timing=replace(QUICK, retry=HOURS)):
            until(lambda: Saga.objects.get(id=saga).status == "waiting")
            cancel(saga)
            until(lambda: Saga.objects.get(id=saga).status == "rolled_back")
        is_cancelled(Saga.objects.get(id=saga), outcomes)
        # What had no answer may have happened.
        assert script.calls == ["fly", "stay", "unstay", "unfly"]

    def test_just_before_it_begins_to_wait(self, script: Script) -> None:
        """The worker still holds it, so that the cancel cannot make it due: the wait does."""
        timing = replace(QUICK, retry=HOURS)
        saga = begin("tour")
        real = writing.write

        def write(group: Any) -> Any:
            if any(isinstance(c, Wait) for e in group for c in e.changes):
                cancel(saga)
            return real(group)

        script.acts["stay"] = raising(ConnectionError("away"))
        assert run_to_end(saga, timing=timing, write=write).status == "rolled_back"

    @pytest.mark.parametrize("status", ["started", "unknown"])
    def test_a_step_that_a_dead_worker_left_in_doubt_is_undone_too(
        self, status: str, script: Script, outcomes: list[SagaOutcome]
    ) -> None:
        saga = begin("tour")
        dead = claimed_by("dead")
        entries.done(dead, "fly", "F", attempt=1, result={})
        entries.started(dead, "stay", "F", attempt=1)
        if status == "unknown":
            entries.failed(dead, "stay", "F", attempt=1, error="timed out", unknown=True)
        cancel(saga)
        is_cancelled(run_to_end(saga), outcomes)
        assert script.calls == ["unstay", "unfly"]

    def test_one_that_timed_out_is_undone_too(
        self, register: Register, script: Script, outcomes: list[SagaOutcome], when: When
    ) -> None:
        register(script.saga("tour", Part("stay", external=True, timeout=0.05), version=2))
        script.acts["stay"] = forever()
        saga = begin("tour")
        when(Point.ATTEMPT_FAILED, "stay:F", lambda: from_a_thread(saga))
        is_cancelled(run_to_end(saga), outcomes)
        assert script.calls == ["stay", "unstay"]

    def test_a_step_that_fails_for_good_first_is_the_reason(
        self, script: Script, outcomes: list[SagaOutcome]
    ) -> None:
        saga = begin("tour")

        async def stay(_: Context) -> None:
            await call_in_thread(cancel, saga)
            raise StepRejected("full")

        script.acts["stay"] = stay
        ended = run_to_end(saga)
        assert (ended.status, ended.failure, ended.cancelled) == ("rolled_back", "full", False)
        assert [(o.reason, o.cancelled) for o in outcomes] == [("full", False)]

    def test_compensations_that_fail_are_retried_and_it_stays_cancelling(
        self, script: Script, outcomes: list[SagaOutcome]
    ) -> None:
        saga = begin("tour")
        dead = claimed_by("dead")
        entries.done(dead, "fly", "F", attempt=1, result={})
        entries.done(dead, "stay", "F", attempt=1, result={})
        cancel(saga)
        seen: list[tuple[str, int]] = []
        left = [1, 2]

        async def unstay(_: Context) -> None:
            row = await call_in_thread(Saga.objects.get, id=saga)
            seen.append((row.status, row.epoch))
            if left:
                raise ConnectionError(str(left.pop()))

        script.acts["unstay"] = unstay
        is_cancelled(run_to_end(saga), outcomes)
        assert seen == [("cancelling", 2)] * 3

    def test_another_worker_goes_on_with_it(
        self, script: Script, outcomes: list[SagaOutcome]
    ) -> None:
        saga = begin("tour")
        dead = claimed_by("dead")
        entries.done(dead, "fly", "F", attempt=1, result={})
        cancel(saga)
        fail = Fail("changed my mind", cancelled=True)
        writing.write([Entry(saga=dead, changes=(fail,))])
        assert Saga.objects.get(id=saga).status == "cancelling"
        again = claimed_by("dead too")
        assert again.cancelled
        assert Saga.objects.get(id=saga).status == "cancelling"
        is_cancelled(run_to_end(saga), outcomes)
        assert script.calls == ["unfly"]

    def test_where_undoing_keeps_failing_it_parks_and_a_retry_ends_it_as_cancelled(
        self, script: Script, outcomes: list[SagaOutcome]
    ) -> None:
        saga = begin("tour")
        entries.done(claimed_by("dead"), "fly", "F", attempt=1, result={})
        cancel(saga)
        script.acts["unfly"] = raising(StepRejected("never"))
        parked = run_to_end(saga)
        assert (parked.status, parked.cancelled) == ("parked", True)
        assert [(o.ending, o.cancelled) for o in outcomes] == [(Ending.PARKED, False)]
        outcomes.clear()
        script.acts.clear()
        call_command("sagas", "retry", str(saga), "--why", "it works again")
        is_cancelled(run_to_end(saga), outcomes)


class TestSideBySide:
    def test_both_are_undone(self, register: Register, script: Script) -> None:
        """One is done, one in doubt, when it comes."""
        register(
            script.saga(
                "tour",
                Part("left", external=True),
                Part("right", external=True),
                Part("join", after=("left", "right")),
            )
        )
        saga = begin("tour")

        async def left(_: Context) -> None:
            await call_in_thread(until, lambda: journal_of(saga).get("right:F") == ("done", 1))
            await call_in_thread(cancel, saga)
            raise ConnectionError("lost")

        script.acts["left"] = left
        ended = run_to_end(saga)
        assert (ended.status, ended.cancelled) == ("rolled_back", True)
        assert sorted(script.calls) == ["left", "right", "unleft", "unright"]


@pytest.mark.usefixtures("one_by_one")
class TestAgainstThePivot:
    def test_first_the_cancel(
        self,
        pivot_is_external: bool,  # noqa: FBT001
        script: Script,
        outcomes: list[SagaOutcome],
    ) -> None:
        """The worker has looked, and nothing forbade the pivot; then the cancel commits."""
        saga = begin("tour")
        refused: list[Any] = []
        with pytest.MonkeyPatch.context() as patch:
            write = self._before_the_pivot_commits(
                patch, lambda: refused.extend(from_a_thread(saga)), pivot_is_external
            )
            is_cancelled(run_to_end(saga, write=write), outcomes)
        assert refused == []
        # A local pivot has run by then, but its transaction is gone with all that it wrote.
        assert script.calls == ["fly", *([] if pivot_is_external else ["pay"]), "unfly"]
        assert "pay:F" not in journal_of(saga)

    def _before_the_pivot_commits(
        self,
        patch: pytest.MonkeyPatch,
        do: Callable[[], object],
        external: bool,  # noqa: FBT001
    ) -> Write:
        """Do this just then; returns what a worker of this test writes with."""
        left = [do]
        real, real_locally = writing.write, local_step.do_locally

        def write(group: Any) -> Any:
            if left and any(e.step and e.step.step == "pay" for e in group):
                left.pop()()
            return real(group)

        def do_locally(entry: Any, **kwargs: Any) -> Any:
            if left and entry.step.step == "pay":
                left.pop()()
            return real_locally(entry, **kwargs)

        if external:
            return write
        patch.setattr(local_step, "do_locally", do_locally)
        return real

    def test_first_the_pivot(
        self,
        pivot_is_external: bool,  # noqa: FBT001
        script: Script,
        outcomes: list[SagaOutcome],
        when: When,
    ) -> None:
        saga = begin("tour")
        refused: list[BaseException] = []
        point = Point.STARTED if pivot_is_external else Point.STEP_DONE
        when(point, "pay:F", lambda: refused.extend(from_a_thread(saga)))
        ended = run_to_end(saga)
        assert (ended.status, ended.cancel_reason, ended.past_pivot) == ("completed", "", True)
        assert script.calls == ["fly", "pay", "thank"]
        (error,) = refused
        assert "past the point of no return" in str(error)
        assert not Intervention.objects.exists()
        assert not outcomes[0].cancelled

    @pytest.mark.on_postgresql
    def test_inside_the_transaction_of_a_local_pivot(
        self, register: Register, script: Script, outcomes: list[SagaOutcome]
    ) -> None:
        register(script.saga("tour", *chain(Part("fly"), Part("pay", pivot=True))))
        saga = begin("tour")
        script.acts["pay"] = lambda _: from_a_thread(saga) and None
        is_cancelled(run_to_end(saga), outcomes)
        assert script.calls == ["fly", "pay", "unfly"]

    @pytest.mark.on_postgresql
    def test_between_a_local_pivots_fence_and_its_commit(
        self, register: Register, script: Script, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The cancel has to wait for the commit, and then comes too late."""
        register(script.saga("tour", *chain(Part("fly"), Part("pay", pivot=True))))
        saga = begin("tour")
        refused: list[BaseException] = []
        threads: list[threading.Thread] = []

        def run() -> None:
            refused.extend(from_a_thread(saga))

        real_run = sql.run_together

        def run_together(statements: Any) -> Any:
            rows = real_run(statements)
            if any("past_pivot" in text and "RETURNING" in text for text, _ in statements):
                threads.append(threading.Thread(target=run))
                threads[0].start()
                until(lambda: waits_for_a_lock() or refused)
                assert not refused
            return rows

        monkeypatch.setattr(sql, "run_together", run_together)
        assert run_to_end(saga).status == "completed"
        threads[0].join()
        assert len(refused) == 1

    @pytest.mark.parametrize("max_retries", [0, 1])
    def test_a_local_pivot_that_fails_while_it_comes(
        self,
        max_retries: int,
        register: Register,
        script: Script,
        outcomes: list[SagaOutcome],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Its transaction is gone, so the pivot has not begun: the cancel is applied, and decided
        in the journal before anything is undone."""
        pay = Part("pay", pivot=True, max_retries=max_retries)
        register(script.saga("tour", *chain(Part("fly"), pay)))
        saga = begin("tour")
        self._before_the_pivot_commits(monkeypatch, lambda: from_a_thread(saga), external=False)
        script.acts["pay"] = raising(ValueError("broken"))
        decided: list[str] = []

        def unfly(_: Context) -> None:
            decided.append(Saga.objects.get(id=saga).failure)

        script.acts["unfly"] = unfly
        is_cancelled(run_to_end(saga), outcomes)
        assert decided == ["changed my mind"]
        assert script.calls == ["fly", "pay", "unfly"]

    @pytest.mark.usefixtures("pivot_is_external")
    def test_one_that_said_no_can_be_cancelled_no_more(self, script: Script) -> None:
        script.acts["pay"] = raising(StepRejected("no money"))
        saga = run_to_end(begin("tour"))
        assert (saga.status, saga.past_pivot, saga.cancelled) == ("rolled_back", False, False)
        with pytest.raises(CancelRefused, match="rolled_back already"):
            cancel(saga.id)

    @pytest.mark.usefixtures("pivot_is_external")
    def test_one_parked_past_it_can_not(self, script: Script) -> None:
        script.acts["thank"] = raising(StepRejected("no"))
        saga = run_to_end(begin("tour"))
        assert saga.status == "parked"
        with pytest.raises(CancelRefused, match="point of no return"):
            cancel(saga.id)
        assert Saga.objects.get(id=saga.id).status == "parked"


def waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        row = cursor.fetchone()
    return bool(row and row[0])


@pytest.mark.usefixtures("plain")
class TestAsking:
    def test_of_one_that_has_completed(self) -> None:
        saga = run_to_end(begin("tour"))
        with pytest.raises(CancelRefused, match="completed already"):
            cancel(saga.id)
        assert Saga.objects.get(id=saga.id).cancel_reason == ""
        assert not Intervention.objects.exists()

    def test_of_one_that_there_is_not(self) -> None:
        with pytest.raises(UnknownSaga, match="there is no saga"):
            cancel(uuid4())

    def test_twice_changes_nothing(self) -> None:
        saga = begin("tour")
        cancel(saga, "first")
        before = Saga.objects.values().get()
        cancel(saga, "second")
        assert Saga.objects.values().get() == before
        (intervention,) = Intervention.objects.all()
        assert (intervention.action, intervention.who, intervention.why) == (
            "cancel",
            "ann",
            "first",
        )

    def test_of_one_that_is_being_undone_changes_nothing(self) -> None:
        saga = begin("tour")
        dead = claimed_by("dead")
        entries.failed(dead, "fly", "F", attempt=1, error="full", decides=True)
        before = Saga.objects.values().get()
        cancel(saga)
        assert Saga.objects.values().get() == before
        assert not Intervention.objects.exists()
        ended = run_to_end(saga)
        assert (ended.status, ended.failure, ended.cancelled) == ("rolled_back", "full", False)

    def test_of_one_that_is_parked_in_its_undoing_changes_nothing(self, script: Script) -> None:
        script.acts |= {
            "stay": raising(StepRejected("full")),
            "unfly": raising(StepRejected("never")),
        }
        saga = run_to_end(begin("tour"))
        cancel(saga.id)
        assert Saga.objects.get(id=saga.id).status == "parked"

    def test_of_a_parked_one_undoes_it_at_once(
        self, script: Script, outcomes: list[SagaOutcome]
    ) -> None:
        """Whatever its last worker's lease says."""
        saga = begin("tour")
        entries.done(claimed_by("dead"), "fly", "F", attempt=1, result={})
        Saga.objects.filter(id=saga).update(definition_hash="of another day")
        assert run_to_end(saga, lease=3600).status == "parked"
        Saga.objects.filter(id=saga).update(
            definition_hash=Saga.objects.get(id=begin("tour", key="K-2")).definition_hash
        )
        outcomes.clear()
        asked = cancel(saga)
        assert (asked.status, asked.park_reason, asked.worker) == ("running", "", "")
        assert asked.next_run_at <= timezone.now()
        Saga.objects.filter(key="K-2").update(paused=True)
        is_cancelled(run_to_end(saga), outcomes)
        assert script.calls == ["unfly"]
        assert Saga.objects.get(id=saga).takeovers == 0

    def test_of_a_paused_one_waits_until_it_is_resumed(self) -> None:
        saga = begin("tour")
        call_command("sagas", "pause", str(saga), "--why", "wait")
        cancel(saga)
        with working():
            other = begin("tour", key="K-2")
            until(lambda: Saga.objects.get(id=other).status == "completed")
            assert Saga.objects.get(id=saga).status == "pending"
        call_command("sagas", "resume", str(saga), "--why", "go on")
        assert run_to_end(saga).status == "rolled_back"

    def test_a_running_ones_lease_is_left_alone(self) -> None:
        saga = begin("tour")
        claimed_by("alive", lease=60)
        before = Saga.objects.get(id=saga)
        cancel(saga)
        after = Saga.objects.get(id=saga)
        assert (after.worker, after.next_run_at) == ("alive", before.next_run_at)

    @pytest.mark.parametrize(
        ("reason", "kept"),
        [
            ("", "cancelled"),
            ("a\0b\ud800", "a\\0b\\ud800"),
            ("x" * 5000, cut("x" * 5000, LONGEST_ERROR)),
        ],
    )
    def test_whatever_the_reason(self, reason: str, kept: str) -> None:
        saga = begin("tour")
        cancel(saga, reason)
        ended = run_to_end(saga)
        assert (ended.status, ended.failure, ended.cancelled) == ("rolled_back", kept, True)

    def test_by_a_person(
        self, capsys: pytest.CaptureFixture[str], outcomes: list[SagaOutcome]
    ) -> None:
        saga = begin("tour")
        call_command("sagas", "cancel", "K-1", "--by", "bob", "--why", "changed my mind")
        assert "tour K-1: pending" in capsys.readouterr().out
        is_cancelled(run_to_end(saga), outcomes)
        call_command("sagas", "show", "K-1", "--json")
        report = json.loads(capsys.readouterr().out)
        assert report["saga"]["cancel_reason"] == "changed my mind"
        assert [(i["action"], i["who"]) for i in report["interventions"]] == [("cancel", "bob")]
        with pytest.raises(CommandError, match="rolled_back already"):
            call_command("sagas", "cancel", "K-1", "--why", "again")


class TestTheInbox:
    """Cancels as commands, by the rule that `cancel_on` makes."""

    @pytest.fixture(autouse=True)
    def _rules(self, register: Register, script: Script) -> None:
        def on_place(_self: Any, event: Context) -> Context:
            return dict(event)

        placing = trigger(source="tours.place", idempotency_key="tour")(on_place)
        register(script.saga("tour", Part("fly"), on_place=placing))
        cancel_on("tours.cancel", saga="tour", idempotency_key="tour", reason=lambda p: p["reason"])

    def record(
        self, kind: str, value: object, *, offset: int, ident: str = "", raw: bytes | None = None
    ) -> Record:
        headers = {
            "ce_specversion": "1.0",
            "ce_id": ident or str(uuid4()),
            "ce_type": kind,
            "ce_source": "/tests",
            "content-type": "application/json",
        }
        return Record(
            topic="tours",
            partition=0,
            offset=offset,
            key=b"T-1",
            value=json.dumps(value).encode() if raw is None else raw,
            headers=tuple((name, text.encode()) for name, text in headers.items()),
        )

    def accept(self, *records: Record) -> int:
        return accepting.accept(records, consumer="tests")

    def place(self, offset: int = 0) -> Record:
        return self.record("tours.place", {"tour": "T-1"}, offset=offset)

    def cancelling(self, offset: int = 1, ident: str = "") -> Record:
        payload = {"tour": "T-1", "reason": "rain"}
        return self.record("tours.cancel", payload, offset=offset, ident=ident)

    def test_both_in_one_batch(self, script: Script) -> None:
        assert self.accept(self.place(), self.cancelling()) == 2
        saga = run_to_end(saga_id("tour", "T-1"))
        assert (saga.status, saga.failure, saga.cancelled) == ("rolled_back", "rain", True)
        assert script.calls == []
        assert InboxMessage.objects.count() == 2

    def test_the_wrong_way_round_in_one_batch(self) -> None:
        self.accept(self.cancelling(0), self.place(1))
        assert Saga.objects.get().cancel_reason == "rain"

    def test_one_for_a_saga_that_there_is_not_is_kept(self) -> None:
        assert self.accept(self.cancelling(7, ident="M-1")) == 0
        kept = RefusedCommand.objects.get()
        assert (kept.offset, kept.reason) == (7, "there is no tour T-1 to cancel")
        assert json.loads(bytes(kept.value or b"")) == {"tour": "T-1", "reason": "rain"}
        assert self.accept(self.cancelling(7, ident="M-1")) == 0
        assert RefusedCommand.objects.count() == 1
        assert not Saga.objects.exists()

    def test_redelivered_it_changes_nothing(self) -> None:
        self.accept(self.place())
        command = self.cancelling()
        assert self.accept(command) == 1
        before = Saga.objects.values().get()
        assert [self.accept(command), self.accept(command, command)] == [0, 0]
        assert Saga.objects.values().get() == before
        (intervention,) = Intervention.objects.all()
        assert intervention.who.startswith("tours.cancel ")

    def test_redelivered_after_a_retry_it_changes_nothing(self) -> None:
        """Known by its inbox row, not by the saga's state."""
        self.accept(self.place())
        saga = saga_id("tour", "T-1")
        command = self.cancelling()
        assert self.accept(command) == 1
        Saga.objects.filter(id=saga).update(cancel_reason="")
        assert self.accept(command) == 0
        assert Saga.objects.get().cancel_reason == ""

    def test_one_that_comes_too_late_is_no_fault(self) -> None:
        self.accept(self.place())
        saga = run_to_end(saga_id("tour", "T-1"))
        assert self.accept(self.cancelling()) == 0
        assert Saga.objects.get().status == saga.status == "completed"
        assert not RefusedCommand.objects.exists()

    @pytest.mark.parametrize(
        ("payload", "raw", "says"),
        [
            ({"reason": "rain"}, None, "business key"),
            ({"tour": ["T-1"], "reason": "rain"}, None, "business key"),
            ({"tour": "", "reason": "rain"}, None, "business key"),
            ({"tour": "T-1"}, None, "reason for the cancel"),
            (None, b"{", "not JSON"),
            ([1], None, "business key"),
        ],
    )
    def test_a_malformed_one_is_kept(self, payload: object, raw: bytes | None, says: str) -> None:
        bad = self.record("tours.cancel", payload, offset=1, raw=raw)
        assert self.accept(self.place(), bad) == 1
        assert says in RefusedCommand.objects.get().reason
        assert Saga.objects.get().cancel_reason == ""

    def test_among_many_each_gets_its_own(self) -> None:
        """Also past one that is refused in the middle of the transaction."""
        places = [self.record("tours.place", {"tour": f"T-{n}"}, offset=n) for n in range(20)]
        cancels = [
            self.record("tours.cancel", {"tour": f"T-{n}", "reason": str(n)}, offset=100 + n)
            for n in range(0, 40, 2)
        ]
        assert self.accept(*places) == 20
        Saga.objects.filter(key="T-4").update(status="completed")
        assert self.accept(*cancels) == 9
        reasons = dict(Saga.objects.values_list("key", "cancel_reason"))
        wanted = {f"T-{n}": str(n) if n % 2 == 0 and n != 4 else "" for n in range(20)}
        assert reasons == wanted
        assert RefusedCommand.objects.count() == 10


class Ledger:
    """What is done, and not undone, of each saga: by a provider, or in rows of our own, which a
    local step writes in its transaction."""

    def __init__(self, *, local: Collection[str]) -> None:
        self._local = local
        self._at_provider: dict[str, set[str]] = {}

    def do(self, step: str, ctx: Context) -> None:
        if step in self._local:
            Product.objects.create(product_id=f"{ctx['saga_id']} {step}")
        else:
            self._at_provider.setdefault(ctx["saga_id"], set()).add(step)

    def undo(self, step: str, ctx: Context) -> None:
        if step in self._local:
            Product.objects.filter(product_id=f"{ctx['saga_id']} {step}").delete()
        else:
            self._at_provider.get(ctx["saga_id"], set()).discard(step)

    def done(self, saga: Saga) -> set[str]:
        rows = Product.objects.filter(product_id__startswith=str(saga.id))
        ours = {row.product_id.split()[1] for row in rows}
        return ours | self._at_provider.get(str(saga.id), set())


@pytest.mark.parametrize(
    ("has_pivot", "pivot_is_external"),
    [(False, False), (True, False), (True, True)],
    ids=["no pivot", "local pivot", "external pivot"],
)
def test_many_cancelled_at_any_moment(
    has_pivot: bool,  # noqa: FBT001
    pivot_is_external: bool,  # noqa: FBT001
    register: Register,
    script: Script,
    on_finish: SetHook,
) -> None:
    """Each ends either way whole; a cancel that was accepted is kept, one refused is not."""
    count = 40 if connection.vendor == "sqlite" else 120
    chance = random.Random(7)
    ledger = Ledger(local={"fly"} if pivot_is_external else {"fly", "pay"})
    names = ("fly", "stay", "pay", "eat")
    parts = [
        Part("fly"),
        Part("stay", external=True, max_retries=20),
        Part("pay", external=pivot_is_external, pivot=has_pivot),
        Part("eat", external=True, max_retries=20),
    ]
    register(script.saga("tour", *chain(*parts)))
    flaky = random.Random(8)

    def act(name: str) -> Callable[[Context], Any]:
        def run(ctx: Context) -> None:
            ledger.do(name, ctx)
            if name in ("stay", "eat") and flaky.random() < 0.1:
                raise ConnectionError("lost")

        return run

    script.acts = {name: act(name) for name in names}
    script.acts |= {f"un{name}": partial(ledger.undo, name) for name in names}
    outcomes: dict[UUID, SagaOutcome] = {}
    on_finish("tour", lambda outcome: outcomes.update({outcome.saga_id: outcome}))
    sagas = [begin("tour", key=f"K-{n}") for n in range(count)]
    accepted: set[UUID] = set()

    def cancel_some(stop: threading.Event) -> None:
        left = chance.sample(sagas, count * 2 // 3)
        while left and not stop.is_set():
            for _ in range(3):
                if left:
                    saga = left.pop()
                    try:
                        cancel(saga)
                        accepted.add(saga)
                    except CancelRefused:
                        pass
            stop.wait(chance.random() * 0.02)

    with in_thread(cancel_some), working(concurrency=8, lease=30):
        until(lambda: not Saga.objects.filter(status__in=ACTIVE).exists(), timeout=60)

    ended = {saga.id: saga for saga in Saga.objects.all()}
    assert {saga.status for saga in ended.values()} <= {"completed", "rolled_back"}
    assert accepted, "no cancel came in time"
    assert len(accepted) < count
    for saga in ended.values():
        whole = set(names) if saga.status == "completed" else set()
        assert ledger.done(saga) == whole, saga
        assert (saga.id in accepted) == bool(saga.cancel_reason)
        # Nothing fails for good here, so a cancel is all that undoes; and an accepted one does.
        assert (saga.status == "rolled_back") == (saga.id in accepted), saga
        assert outcomes[saga.id].cancelled == saga.cancelled == (saga.id in accepted)
        assert not (saga.past_pivot and saga.cancel_reason)
    undone = SagaStep.objects.filter(kind="C").exclude(status="done")
    assert not undone.exists()
