"""The history of attempts, what is retried when, and what spends a retry."""

import asyncio
import json
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import DataError, OperationalError, connection

from saga_runtime.backoff import Backoff
from saga_runtime.interventions import By
from sagas import StepRejected, call_in_thread
from sagas.crash_points import Point, observe
from sagas.definition.steps import Step
from sagas.journal import local_step, sql, writing
from sagas.journal.entries import Entry
from sagas.models import Saga, SagaAttempt, SagaStep, StepKind, StepStatus
from sagas.operations import interventions, reports
from sagas.operations.interventions import InterventionRefused
from sagas.run.tries import Tries
from tests.unit.sagas import journal_entries as entries
from tests.unit.sagas.saga_running import (
    QUICK,
    Context,
    Register,
    attempts_of,
    begin,
    history_of,
    run_to_end,
    working,
)
from tests.unit.sagas.scripted_sagas import (
    Part,
    Script,
    chain,
    claimed_by,
    failing,
    failures_of,
    forever,
    raising,
)
from tests.unit.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

FLY = Step("fly", StepKind.FORWARD, dict, is_external=False, max_retries=0, timeout=0.2)
AWAY = ConnectionError("away")
LOST = "server closed the connection unexpectedly"
needs_postgresql = pytest.mark.on_postgresql


@pytest.fixture
def tour(register: Register, script: Script) -> None:
    register(script.saga("tour", *chain(Part("fly"), Part("stay", external=True), Part("eat"))))


@pytest.mark.usefixtures("tour")
class TestHistory:
    def test_of_a_saga_that_goes_well(self) -> None:
        saga = run_to_end(begin("tour")).id
        assert history_of(saga) == [
            ("fly:F", 1, "done"),
            ("stay:F", 1, "done"),
            ("eat:F", 1, "done"),
        ]
        assert all(a.worker for a in attempts_of(saga))

    def test_of_a_saga_that_goes_well_is_a_row_a_step(self) -> None:
        run_to_end(begin("tour"))
        assert (SagaStep.objects.count(), SagaAttempt.objects.count()) == (3, 0)

    def test_attempts_are_numbered_and_failures_counted(self, script: Script) -> None:
        script.acts |= {
            "fly": failing(ValueError("1"), ValueError("2")),
            "stay": failing(AWAY),
            "eat": raising(StepRejected("no table")),
            "unstay": failing(AWAY),
        }
        saga = run_to_end(begin("tour")).id
        assert history_of(saga) == [
            ("fly:F", 1, "failed"),
            ("fly:F", 2, "failed"),
            ("fly:F", 3, "done"),
            ("stay:F", 1, "unknown"),
            ("stay:F", 2, "done"),
            ("eat:F", 1, "failed"),
            ("stay:C", 1, "unknown"),
            ("stay:C", 2, "done"),
            ("fly:C", 1, "done"),
        ]
        assert failures_of(saga)["fly:F"] == ("done", 3, 2)
        errors = [attempt.error for attempt in attempts_of(saga, of="fly:F")]
        assert errors == ["ValueError: 1", "ValueError: 2", ""]

    def test_a_crash_takes_a_number_and_no_retry(self, script: Script) -> None:
        saga = begin("tour")
        dead = claimed_by("dead 1")
        entries.done(dead, "fly", "F", attempt=1, result={})
        for n in (1, 2, 3):
            entries.started(claimed_by(f"dead {n}"), "stay", "F", attempt=n)
        script.acts["stay"] = failing(AWAY, AWAY)
        assert run_to_end(saga).status == "completed"
        of_stay = [(n, status) for step, n, status in history_of(saga) if step == "stay:F"]
        assert of_stay == [
            *((n, "started") for n in (1, 2, 3)),
            *((n, "unknown") for n in (4, 5)),
            (6, "done"),
        ]
        workers = [attempt.worker for attempt in attempts_of(saga, of="stay:F")]
        assert workers[:3] == ["dead 1", "dead 2", "dead 3"]
        assert len({*workers[3:]} - {*workers[:3]}) == 1
        assert failures_of(saga)["stay:F"] == ("done", 6, 2)

    def test_a_retry_by_a_person_goes_on_numbering(self, script: Script) -> None:
        script.acts |= {"eat": raising(StepRejected("no")), "unfly": raising(AWAY)}
        saga = run_to_end(begin("tour")).id
        call_command("sagas", "retry", str(saga), "--why", "again")
        script.acts["unfly"] = failing(AWAY)
        assert run_to_end(saga).status == "rolled_back"
        of_undoing = [(n, status) for step, n, status in history_of(saga) if step == "fly:C"]
        assert of_undoing == [
            (1, "failed"),
            (2, "failed"),
            (3, "failed"),
            (4, "failed"),
            (5, "done"),
        ]
        assert failures_of(saga)["fly:C"] == ("done", 5, 1)

    def test_rows_are_only_ever_added(self, script: Script) -> None:
        script.acts |= {"stay": failing(AWAY, AWAY), "eat": raising(StepRejected("no"))}
        saga = begin("tour")
        seen: dict[int, Any] = {}

        def has_ended() -> bool:
            for row in SagaAttempt.objects.values():
                assert seen.setdefault(row["id"], row) == row
            return Saga.objects.get(id=saga).finished_at is not None

        with working():
            until(has_ended)
        assert has_ended()
        assert len(seen) == SagaAttempt.objects.count() == 2


@pytest.mark.usefixtures("tour")
class TestReports:
    @pytest.fixture
    def saga(self, script: Script) -> UUID:
        """One attempt that failed, one that nobody knows of, and then it went well."""
        saga = begin("tour")
        entries.started(claimed_by("dead"), "stay", "F", attempt=1)
        script.acts["stay"] = failing(ConnectionError("no route"))
        assert run_to_end(saga).status == "completed"
        return saga

    def test_the_timeline_has_each_attempt_once(self, saga: UUID) -> None:
        timeline = reports.report_saga(Saga.objects.get(id=saga))["timeline"]
        assert [(a["step"], a["kind"], a["attempt"], a["status"]) for a in timeline] == [
            ("stay", "forward", 1, "started"),
            ("fly", "forward", 1, "done"),
            ("stay", "forward", 2, "unknown"),
            ("stay", "forward", 3, "done"),
            ("eat", "forward", 1, "done"),
        ]
        assert [a["seconds"] is None for a in timeline] == [True, *[False] * 4]
        assert all(a["seconds"] >= 0 for a in timeline[1:])
        assert timeline[0]["worker"] == "dead"
        assert timeline[2]["error"] == "ConnectionError: no route"
        begun = [a["started_at"] for a in timeline]
        assert begun == sorted(begun)

    def test_what_a_person_says_is_no_attempt_and_hides_none(self, script: Script) -> None:
        script.acts |= {"eat": raising(StepRejected("no")), "unstay": raising(AWAY)}
        saga = run_to_end(begin("tour"))
        of_undoing = [("compensation", n, "unknown") for n in (1, 2, 3)]
        for _ in range(2):
            timeline = reports.report_saga(saga)["timeline"]
            undoing = [a for a in timeline if (a["step"], a["kind"]) == ("stay", "compensation")]
            assert [(a["kind"], a["attempt"], a["status"]) for a in undoing] == of_undoing
            assert [a["error"] for a in undoing] == ["ConnectionError: away"] * 3
            assert all(a["worker"] for a in undoing)
            if SagaStep.objects.get(step="stay", kind="C").status == "unknown":
                call_command("sagas", "resolve", str(saga.id), "stay", "--undo", "--why", "by hand")
        assert SagaStep.objects.get(step="stay", kind="C").status == "done"

    def test_rows_of_the_first_release_are_read(self) -> None:
        """It kept a row for each start and each end, and no worker with the step."""
        saga = Saga.objects.get(id=begin("tour"))
        began = saga.created_at
        saga.steps.create(step="stay", kind="F", status="done", attempt=2, started_at=began)
        for attempt, statuses in {1: ["started"], 2: ["started", "done"]}.items():
            for status in statuses:
                saga.attempts.create(
                    step="stay", kind="F", attempt=attempt, status=status, worker=f"w{attempt}",
                    started_at=began,
                )  # fmt: skip
        timeline = reports.report_saga(saga)["timeline"]
        assert [(a["attempt"], a["status"], a["worker"]) for a in timeline] == [
            (1, "started", "w1"),
            (2, "done", "w2"),
        ]
        # It took over from a worker of this one, whose name stays with the step.
        saga.steps.update(worker="w1", traceback="of the attempt before")
        last = reports.report_saga(saga)["timeline"][-1]
        assert (last["attempt"], last["worker"], last["traceback"]) == (2, "w2", "")

    def test_show(self, saga: UUID, capsys: pytest.CaptureFixture[str]) -> None:
        call_command("sagas", "show", str(saga))
        text = capsys.readouterr().out
        for part in ("dead", "ConnectionError: no route", "unknown", "started"):
            assert part in text

    def test_show_as_json(self, saga: UUID, capsys: pytest.CaptureFixture[str]) -> None:
        call_command("sagas", "show", "K-1", "--json")
        report = json.loads(capsys.readouterr().out)
        assert report["timeline"] == reports.report_saga(Saga.objects.get(id=saga))["timeline"]
        assert len(report["timeline"]) == 5


class TestBackoff:
    def gaps(self, saga: UUID, step: str) -> list[float]:
        """Seconds from the end of an attempt to the start of the next."""
        ends = {kept.attempt: kept.at for kept in SagaAttempt.objects.filter(step=step, kind="F")}
        return [
            (later.started_at - ends[earlier.attempt]).total_seconds()
            for earlier, later in pairwise(attempts_of(saga, of=f"{step}:F"))
        ]

    @pytest.mark.parametrize("external", [False, True], ids=["local", "external"])
    def test_grows(
        self,
        external: bool,  # noqa: FBT001
        register: Register,
        script: Script,
    ) -> None:
        first = 0.05
        timing = replace(QUICK, retry=Backoff(first=first, longest=30.0))
        register(script.saga("tour", Part("stay", external=external, max_retries=4)))
        script.acts["stay"] = raising(AWAY)
        saga = run_to_end(begin("tour"), timing=timing)
        assert saga.status == "rolled_back"
        assert script.calls.count("stay") == 5
        gaps = self.gaps(saga.id, "stay")
        for n, gap in enumerate(gaps):
            # Jitter takes at most half; what the machine adds has no bound but a generous one.
            assert first * 2**n * 0.5 <= gap + 0.002, gaps
            assert gap < first * 2**n * 1.5 + 1.0, gaps
        assert len(gaps) == 4
        assert gaps[3] > gaps[0]

    @pytest.mark.parametrize("retries", [0, 1, 3])
    def test_so_many_retries_and_no_more(
        self, retries: int, register: Register, script: Script
    ) -> None:
        register(script.saga("tour", Part("stay", external=True, max_retries=retries)))
        script.acts["stay"] = raising(AWAY)
        run_to_end(begin("tour"))
        assert script.calls.count("stay") == retries + 1

    def test_a_no_is_not_retried(self, register: Register, script: Script) -> None:
        register(script.saga("tour", Part("fly", max_retries=9)))
        script.acts["fly"] = raising(StepRejected("full"))
        saga = run_to_end(begin("tour"))
        assert (saga.failure, script.calls) == ("full", ["fly"])

    def test_a_step_and_its_undoing_have_budgets_of_their_own(
        self, register: Register, script: Script
    ) -> None:
        part = Part("stay", external=True, max_retries=1, undo_retries=3)
        register(script.saga("tour", part))
        script.acts = {"stay": raising(AWAY), "unstay": failing(AWAY, AWAY, AWAY)}
        saga = run_to_end(begin("tour"))
        assert saga.status == "rolled_back"
        assert failures_of(saga.id) == {"stay:F": ("unknown", 2, 2), "stay:C": ("done", 4, 3)}


class TestTimeoutsOfLocalSteps:
    @needs_postgresql
    def test_end_the_statement_and_are_failures(self, register: Register, script: Script) -> None:
        register(script.saga("tour", Part("fly", timeout=0.2, max_retries=1)))

        def fly(_: Context) -> None:
            Saga.objects.create(
                id=UUID(int=len(script.calls)), name="trace", key="trace", status="completed"
            )
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(60)")

        script.acts["fly"] = fly
        began = time.monotonic()
        saga = run_to_end(begin("tour"))
        assert time.monotonic() - began < 50
        assert saga.status == "rolled_back"
        assert "statement timeout" in saga.failure
        assert script.calls == ["fly", "fly"]
        assert failures_of(saga.id)["fly:F"] == ("failed", 2, 2)
        timeline = reports.report_saga(saga)["timeline"]
        assert all(0.15 < attempt["seconds"] < 50 for attempt in timeline)
        assert not Saga.objects.filter(name="trace").exists()

    @needs_postgresql
    @pytest.mark.usefixtures("tour")
    def test_end_with_the_step(self) -> None:
        """The connection is another step's next."""

        def limits() -> list[Any]:
            names = ("statement_timeout", "idle_in_transaction_session_timeout")
            return [sql.run(f"SHOW {name}", [])[0][0] for name in names]

        begin("tour")
        before = limits()
        entry = Entry(saga=claimed_by("w"), step=Tries(attempt=1).entry(FLY, StepStatus.DONE))
        within, _ = local_step.do_locally(entry, work=limits, timeout=0.2)
        assert within == ["200ms", "200ms"]
        assert limits() == before

    @needs_postgresql
    def test_a_pause_between_two_statements_spends_retries_too(
        self, register: Register, script: Script
    ) -> None:
        """The server ends a transaction that idles: that is the step's fault, not an outage, and
        must not go on for ever."""
        register(script.saga("tour", Part("fly", timeout=0.1, max_retries=1)))

        def fly(_: Context) -> None:
            assert Saga.objects.count() == 1
            time.sleep(0.4)
            Saga.objects.count()

        script.acts["fly"] = fly
        saga = run_to_end(begin("tour"))
        assert saga.status == "rolled_back"
        assert script.calls == ["fly", "fly"]
        assert failures_of(saga.id)["fly:F"] == ("failed", 2, 2)

    def test_of_an_external_step_leave_it_in_doubt(
        self, register: Register, script: Script
    ) -> None:
        register(script.saga("tour", Part("stay", external=True, timeout=0.1, max_retries=1)))
        script.acts["stay"] = forever()
        saga = run_to_end(begin("tour"))
        assert failures_of(saga.id)["stay:F"] == ("unknown", 2, 2)
        assert [a.error for a in attempts_of(saga.id, of="stay:F")] == ["timed out"] * 2


@pytest.mark.usefixtures("tour")
class TestOurOwnDatabaseAway:
    def outage(self, monkeypatch: pytest.MonkeyPatch, *, tries: int) -> list[int]:
        """The next so many look-ups fail; counts them."""
        seen: list[int] = []
        real = sql.run

        def run(text: str, params: Any) -> Any:
            if text == "SELECT 1":
                seen.append(1)
                if len(seen) <= tries:
                    raise OperationalError(LOST)
            return real(text, params)

        monkeypatch.setattr(sql, "run", run)
        return seen

    def test_during_an_external_step_spends_no_retry(
        self, script: Script, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = self.outage(monkeypatch, tries=3)
        script.acts["stay"] = failing(OperationalError(LOST))
        saga = run_to_end(begin("tour"))
        assert saga.status == "completed"
        assert len(seen) == 4
        assert failures_of(saga.id)["stay:F"] == ("done", 2, 0)

    def test_another_database_that_is_away_does(
        self, script: Script, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ours answers: then it was the step's own."""
        self.outage(monkeypatch, tries=0)
        script.acts["stay"] = raising(OperationalError(LOST))
        saga = run_to_end(begin("tour"))
        assert saga.status == "rolled_back"
        assert failures_of(saga.id)["stay:F"] == ("unknown", 3, 3)

    def test_a_call_that_was_cut_off_by_it_stays_in_doubt(
        self, script: Script, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.outage(monkeypatch, tries=1)
        script.acts["stay"] = failing(OperationalError(LOST), StepRejected("full"))
        assert run_to_end(begin("tour")).status == "rolled_back"
        assert script.calls == ["fly", "stay", "stay", "unstay", "unfly"]

    def test_where_the_answer_cannot_be_written_the_call_is_not_made_again(
        self, script: Script
    ) -> None:
        failures = iter(range(4))
        real = writing.write

        def write(group: Any) -> Any:
            done = [e for e in group if e.step and (e.step.step, e.step.status) == ("stay", "done")]
            if done and next(failures, None) is not None:
                raise OperationalError(LOST)
            return real(group)

        saga = run_to_end(begin("tour"), write=write)
        assert saga.status == "completed"
        assert script.calls == ["fly", "stay", "eat"]
        assert history_of(saga.id).count(("stay:F", 1, "done")) == 1

    @pytest.mark.usefixtures("one_by_one")
    def test_where_it_never_can_nothing_follows_and_it_is_taken_up_again(
        self, script: Script
    ) -> None:
        failures = iter(range(1))
        real = writing.write
        journalled: list[list[str]] = []

        def write(group: Any) -> Any:
            done = [e for e in group if e.step and (e.step.step, e.step.status) == ("stay", "done")]
            if done and next(failures, None) is not None:
                raise DataError("no such text")
            return real(group)

        stay = SagaStep.objects.filter(step="stay").values_list("status", flat=True)
        script.acts["eat"] = lambda _: journalled.append(list(stay.all()))
        saga = run_to_end(begin("tour"), lease=1.0, write=write)
        assert saga.status == "completed"
        assert script.calls == ["fly", "stay", "stay", "eat"]
        assert journalled == [["done"]]


class TestParallelExternalSteps:
    def test_do_not_undo_each_others_changes(self, register: Register, script: Script) -> None:
        """`left` saw the count before `right` changed it, and has not touched it."""
        join = Part("join", after=("left", "right"))
        register(
            script.saga("tour", Part("left", external=True), Part("right", external=True), join)
        )
        seen: list[Context] = []
        saga = begin("tour", seats=1, hotel="old")

        async def left(_: Context) -> Context:
            await call_in_thread(until, lambda: right_is_handed_on)
            return {"l": 1}

        right_is_handed_on: list[int] = []

        async def right(ctx: Context) -> None:
            ctx["seats"], ctx["hotel"] = 2, "new"

        def look(point: Point, where: str) -> None:
            if (point, where) == (Point.STEP_DONE, "right:F"):
                # sagaz merges it in the very next turns of the loop; `left` wakes after a thread.
                asyncio.get_running_loop().call_later(0.02, right_is_handed_on.append, 1)

        end = observe(look)

        script.acts |= {"left": left, "right": right, "join": lambda ctx: seen.append(dict(ctx))}
        with working():
            until(lambda: Saga.objects.get(id=saga).status == "completed")
        end()
        (context,) = seen
        assert (context["seats"], context["hotel"], context["l"]) == (2, "new", 1)


class TestByHand:
    """What a person settles must not leave a saga half done."""

    @pytest.fixture
    def undoing(self, register: Register, script: Script) -> UUID:
        register(script.saga("tour", *chain(Part("fly"), Part("pay", pivot=True))))
        script.acts |= {"pay": raising(StepRejected("no money")), "unfly": raising(AWAY)}
        saga = run_to_end(begin("tour"))
        assert (saga.status, saga.failure) == ("parked", "no money")
        return saga.id

    def test_a_step_of_one_that_is_being_undone_does_not_count_as_done(self, undoing: UUID) -> None:
        """With its pivot done, sagaz would undo nothing and it would end as rolled back."""
        with pytest.raises(InterventionRefused, match="being undone"):
            interventions.resolve(undoing, "pay", StepKind.FORWARD, by=By("ann", "paid"))
        assert Saga.objects.get(id=undoing).status == "parked"

    def test_a_pivot_that_a_person_has_seen_to_is_a_pivot(
        self, register: Register, script: Script
    ) -> None:
        parts = (Part("fly"), Part("pay", pivot=True), Part("thank", max_retries=0))
        register(script.saga("tour", *chain(*parts)))
        saga = begin("tour")
        entries.done(claimed_by("dead"), "fly", "F", attempt=1, result={})
        Saga.objects.filter(id=saga).update(status="parked", worker="")
        interventions.resolve(saga, "pay", StepKind.FORWARD, by=By("ann", "paid in cash"))
        assert Saga.objects.get(id=saga).past_pivot
        with pytest.raises(InterventionRefused, match="point of no return"):
            interventions.cancel(saga, by=By("ann", "no"))
        script.acts["thank"] = raising(ValueError("broken"))
        found = run_to_end(saga)
        assert (found.status, script.calls) == ("parked", ["thank"])


def test_conflicts_spend_no_retry(
    register: Register, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(script.saga("tour", Part("fly", max_retries=0)))
    left = [1, 2, 3]

    class ConflictError(Exception):
        sqlstate = "40001"

    def fly(_: Context) -> None:
        if left:
            left.pop()
            raise OperationalError("could not serialize access") from ConflictError()

    script.acts["fly"] = fly
    saga = run_to_end(begin("tour"))
    assert saga.status == "completed"
    assert failures_of(saga.id)["fly:F"] == ("done", 1, 0)


def test_a_lock_that_a_step_would_not_wait_for_spends_its_retries(
    register: Register, script: Script
) -> None:
    """Not as a conflict, of which the server chooses the victim: without end, and unseen."""
    register(script.saga("tour", Part("fly", max_retries=1)))

    class LockNotAvailableError(Exception):
        sqlstate = "55P03"

    def fly(_: Context) -> None:
        raise OperationalError("could not obtain lock") from LockNotAvailableError()

    script.acts["fly"] = fly
    saga = run_to_end(begin("tour"))
    assert (saga.status, script.calls) == ("rolled_back", ["fly", "fly"])
    assert saga.failure == "OperationalError: could not obtain lock"
