"""An external step shares its neighbours' commits: the local step before it writes its start, the
local step behind it writes its answer. Whatever fails, nothing of either is lost."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import DataError, connection, transaction
from django.utils import timezone

from sagas import SagaOutcome, StepRejected, call_in_thread, commit_alone
from sagas.crash_points import Point, observe
from sagas.errors import CancelRefused
from sagas.journal import local_step
from sagas.journal.cancelling import request_cancel
from sagas.models import Saga
from sagas.run.saga_run import SagaRun
from sagas.worker.executor import Executor
from tests.unit.sagas import journal_entries as entries
from tests.unit.sagas.saga_running import (
    Context,
    Register,
    begin,
    history_of,
    journal_of,
    run_to_end,
    working,
)
from tests.unit.sagas.scripted_sagas import Part, Script, chain, claimed_by, failing, raising
from tests.unit.waiting import in_thread, until

pytestmark = pytest.mark.django_db(transaction=True)

SetHook = Callable[[str, Callable[[SagaOutcome], None]], None]
DONE = dict.fromkeys(("fly:F", "stay:F", "eat:F"), ("done", 1))


@pytest.fixture
def tour(register: Register, script: Script) -> str:
    """Local, external, local."""
    register(script.saga("tour", *chain(Part("fly"), Part("stay", external=True), Part("eat"))))
    return "tour"


@pytest.fixture
def at() -> Iterator[Callable[[Point, str, Callable[[], object]], None]]:
    """Do something once, when the worker is at a point."""
    ends: list[Callable[[], None]] = []

    def register_at(point: Point, where: str, do: Callable[[], object]) -> None:
        left = [do]

        def look(reached: Point, there: str) -> None:
            if reached is point and there == where and left:
                left.pop()()

        ends.append(observe(look))

    yield register_at
    for end in ends:
        end()


At = Callable[[Point, str, Callable[[], object]], None]


def cancel(saga: UUID) -> list[str]:
    """From another connection, as a person does; returns why it was refused."""
    refused: list[str] = []

    def ask(_: threading.Event) -> None:
        try:
            with transaction.atomic():
                request_cancel(saga, who="ann", reason="changed my mind")
        except CancelRefused as error:
            refused.append(str(error))

    with in_thread(ask):
        pass
    return refused


def written_by() -> dict[str, str]:
    """The transaction that has written each row of the journal, by the step's or saga's name."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT step, xmin::text FROM sagas_step UNION SELECT name, xmin::text FROM sagas_saga"
        )
        return dict(cursor.fetchall())


def stop(worker: Executor) -> None:
    """As a worker does that is to stop: each run ends behind its step."""
    for _, run in worker._running.values():
        assert isinstance(run, SagaRun)
        run.suspend("it stops here")


class TestTwoCommits:
    @pytest.mark.on_postgresql
    def test_have_all_of_the_saga(self, tour: str, script: Script) -> None:
        during_the_call: list[dict[str, str]] = []

        async def stay(_: Context) -> None:
            during_the_call.append(await call_in_thread(written_by))

        script.acts["stay"] = stay
        saga = run_to_end(begin(tour))
        assert saga.status == "completed"
        [then], now = during_the_call, written_by()
        assert then["fly"] == then["stay"] == now["fly"]
        assert now["stay"] == now["eat"] == now["tour"] != then["fly"]

    def test_hand_the_answer_on(self, tour: str, script: Script, on_finish: SetHook) -> None:
        outcomes: list[SagaOutcome] = []
        on_finish(tour, outcomes.append)
        seen: list[Any] = []
        script.acts |= {
            "fly": lambda _: {"seat": 7},
            "stay": lambda ctx: {"room": (ctx["seat"], 1)},
            "eat": lambda ctx: seen.append(ctx["room"]),
        }
        saga = run_to_end(begin(tour))
        assert journal_of(saga.id) == DONE
        assert seen == [(7, 1)]
        assert outcomes[0].context["room"] == (7, 1)

    def test_are_three_where_a_step_commits_alone(self, register: Register, script: Script) -> None:
        saga_class = script.saga(
            "tour", *chain(Part("fly"), Part("stay", external=True), Part("eat"))
        )
        commit_alone(saga_class.eat)  # type: ignore[attr-defined]
        register(saga_class)
        seen: list[dict[str, tuple[str, int]]] = []
        saga = begin("tour")
        script.acts["eat"] = lambda _: seen.append(journal_of(saga))
        assert run_to_end(saga).status == "completed"
        assert seen == [{"fly:F": ("done", 1), "stay:F": ("done", 1)}]

    def test_are_none_of_an_undo(self, tour: str, script: Script) -> None:
        seen: list[dict[str, tuple[str, int]]] = []
        saga = begin(tour)
        script.acts |= {
            "eat": raising(StepRejected("no table")),
            "unfly": lambda _: seen.append(journal_of(saga)),
        }
        assert run_to_end(saga).status == "rolled_back"
        assert seen[0]["stay:C"] == ("done", 1)


class TestTheStepBehind:
    """Whatever becomes of it, the answer before it is kept."""

    @pytest.mark.parametrize(
        "act",
        [
            failing(OSError("away")),
            failing(StepRejected("no")),
            failing(ValueError("broken")),
            failing(SystemExit(3)),
        ],
        ids=["fails once", "says no", "is broken", "leaves by SystemExit"],
    )
    def test_that_fails(self, act: Any, tour: str, script: Script) -> None:
        script.acts["eat"] = act
        saga = run_to_end(begin(tour))
        assert script.calls.count("stay") == 1
        assert history_of(saga.id).count(("stay:F", 1, "done")) == 1
        assert saga.status == ("rolled_back" if "unstay" in script.calls else "completed")

    def test_whose_rows_cannot_be_written(
        self, tour: str, script: Script, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_args: Any, **_kwargs: Any) -> None:
            raise DataError("no such text")

        monkeypatch.setattr(local_step, "_write_end", refuse)
        saga = run_to_end(begin(tour))
        assert (saga.status, journal_of(saga.id)) == ("completed", DONE)
        assert script.calls == ["fly", "stay", "eat", "eat"]

    def test_before_which_the_worker_stops(self, tour: str, script: Script, at: At) -> None:
        """The next worker does not call again."""
        saga = begin(tour)
        with working() as worker:
            at(Point.CALLED, "stay:F", lambda: stop(worker))
            until(lambda: "stay" in script.calls and not worker._running)
            assert journal_of(saga) == {"fly:F": ("done", 1), "stay:F": ("done", 1)}
        assert run_to_end(saga).status == "completed"
        assert script.calls == ["fly", "stay", "eat"]

    def test_that_another_worker_does(self, tour: str, script: Script) -> None:
        """A worker that has lost its saga during the call writes nothing."""
        saga = begin(tour)

        def take_over() -> None:
            Saga.objects.filter(id=saga).update(
                epoch=99, worker="next", next_run_at=timezone.now() + timedelta(hours=1)
            )

        script.acts["stay"] = lambda _: call_in_thread(take_over)
        with working() as worker:
            until(lambda: "stay" in script.calls)
            until(lambda: not worker._running)
        assert journal_of(saga) == {"fly:F": ("done", 1), "stay:F": ("started", 1)}
        assert Saga.objects.get(id=saga).status == "running"

    def test_a_person_who_settles_the_call_meanwhile_is_heeded(
        self, tour: str, script: Script
    ) -> None:
        """The row of the call says something else by then: nothing is written over it."""
        saga = begin(tour)

        def settle(_: Context) -> None:
            steps = Saga.objects.get(id=saga).steps
            steps.filter(step="stay").update(status="done", attempt=9, result='{"room": 1}')

        script.acts["eat"] = settle
        with working() as worker:
            until(lambda: "eat" in script.calls)
            until(lambda: not worker._running)
        assert "eat:F" not in journal_of(saga)


def test_an_answer_is_committed_before_a_step_that_cannot_share(
    register: Register, script: Script
) -> None:
    """A person has settled a later step: then nothing follows the step in its transaction."""
    parts = [Part("fly"), Part("stay", external=True), Part("eat"), Part("pack")]
    register(script.saga("tour", *chain(*parts)))
    saga = begin("tour")
    claimed = claimed_by("a person")
    entries.done(claimed, "pack", "F", attempt=1, result={})
    Saga.objects.filter(id=saga).update(worker="", takeovers=0, next_run_at=timezone.now())
    seen: list[dict[str, tuple[str, int]]] = []
    script.acts["eat"] = lambda _: seen.append(journal_of(saga))
    assert run_to_end(saga).status == "completed"
    assert seen[0]["stay:F"] == ("done", 1)


class TestACancel:
    def test_during_the_call_undoes_it(self, tour: str, script: Script) -> None:
        saga = begin(tour)

        async def stay(_: Context) -> None:
            await call_in_thread(cancel, saga)

        script.acts["stay"] = stay
        ended = run_to_end(saga)
        assert (ended.status, ended.cancelled, ended.failure) == (
            "rolled_back",
            True,
            "changed my mind",
        )
        # The step behind it was tried, and rolled back: only its fence finds the cancel.
        assert script.calls == ["fly", "stay", "eat", "unstay", "unfly"]
        assert journal_of(saga) == {
            "fly:F": ("done", 1),
            "stay:F": ("done", 1),
            "stay:C": ("done", 1),
            "fly:C": ("done", 1),
        }

    def test_right_behind_the_start_undoes_the_call(
        self, tour: str, script: Script, at: At
    ) -> None:
        saga = begin(tour)
        at(Point.STEP_DONE, "fly:F", lambda: cancel(saga))
        assert run_to_end(saga).status == "rolled_back"
        assert script.calls == ["fly", "stay", "eat", "unstay", "unfly"]

    def test_is_accepted_until_a_pivot_starts(
        self, register: Register, script: Script, at: At
    ) -> None:
        """No start of a pivot is written ahead: it could not be taken back."""
        parts = [Part("fly"), Part("stay", external=True, pivot=True), Part("eat")]
        register(script.saga("tour", *chain(*parts)))
        saga = begin("tour")
        at(Point.STEP_DONE, "fly:F", lambda: cancel(saga))
        assert run_to_end(saga).status == "rolled_back"
        assert script.calls == ["fly", "unfly"]


class TestACallThatIsStartedAndNotMade:
    """Nobody can tell it from one that was made, so it is undone, or made under the same key."""

    def test_for_the_deadline_passes(self, tour: str, script: Script, at: At) -> None:
        saga = begin(tour)
        deadline = timezone.now() + timedelta(seconds=2)
        Saga.objects.filter(id=saga).update(deadline=deadline)
        at(
            Point.STEP_DONE,
            "fly:F",
            lambda: until(lambda: timezone.now() > deadline + timedelta(seconds=0.1)),
        )
        ended = run_to_end(saga)
        assert (ended.status, ended.failure) == ("rolled_back", "its deadline has passed")
        assert script.calls == ["fly", "unstay", "unfly"]
        assert journal_of(saga)["stay:F"] == ("started", 1)

    def test_for_the_worker_stops(self, tour: str, script: Script, at: At) -> None:
        saga = begin(tour)
        with working() as worker:
            at(Point.STEP_DONE, "fly:F", lambda: stop(worker))
            until(lambda: "fly" in script.calls and not worker._running)
            assert journal_of(saga) == {"fly:F": ("done", 1), "stay:F": ("started", 1)}
        assert run_to_end(saga).status == "completed"
        assert script.calls == ["fly", "stay", "eat"]
        assert journal_of(saga)["stay:F"] == ("done", 2)
