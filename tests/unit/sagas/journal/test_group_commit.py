"""What sagas that run side by side write in one transaction, and what one of them cannot spoil."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import DataError, OperationalError, connection, transaction
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saga_runtime.database_threads import Threads
from sagas.definition.hooks import Ending
from sagas.journal import group_commit, writing
from sagas.journal.cancelling import request_cancel
from sagas.journal.entries import (
    BeginPivot,
    Busy,
    Cancelled,
    Change,
    End,
    Entry,
    Fail,
    Fenced,
    Refused,
    StepEntry,
    Verdict,
    Wait,
    Written,
)
from sagas.journal.group_commit import GroupCommit
from sagas.journal.records import Claimed
from sagas.models import Saga, SagaAttempt, SagaStatus, SagaStep, StepStatus
from tests.unit.sagas.saga_running import Register, Write, begin, history_of, working
from tests.unit.sagas.scripted_sagas import Part, Script, chain, claimed_by
from tests.unit.waiting import TIMEOUT, in_thread, until

WRITTEN, FENCED, BUSY, REFUSED = Written(), Fenced(), Busy(), Refused()
SECOND = timedelta(seconds=1)
STEPS = ("fly", "stay")


@pytest.fixture(autouse=True)
def _tours(register: Register) -> None:
    register(Script().saga("tour", *chain(Part("fly"), Part("stay", external=True))))


def claimed(count: int) -> list[Claimed]:
    """As many sagas, held by one worker."""
    from sagas.journal import claims

    for n in range(count):
        begin("tour", key=f"K-{n}")
    found = claims.claim(worker="w", limit=count, lease=timedelta(seconds=60))
    assert len(found) == count
    return sorted(found, key=lambda each: int(each.key[2:]))


def step_entry(
    status: StepStatus = StepStatus.STARTED,
    *,
    attempt: int = 1,
    step: str = "stay",
    failures: int = 0,
    error: str = "",
    traceback: str = "",
) -> StepEntry:
    return StepEntry(
        step=step,
        kind="F",
        status=status,
        attempt=attempt,
        failures=failures,
        traceback=traceback,
        started_at=timezone.now(),
        error=error,
    )


def started(saga: Claimed, *changes: Change, attempt: int = 1, step: str = "stay") -> Entry:
    return Entry(saga=saga, step=step_entry(attempt=attempt, step=step), changes=changes)


def ready_for(saga: Claimed, ending: Ending) -> None:
    """Bring a saga to where it may end so."""
    if ending is Ending.ROLLED_BACK:
        writing.write([Entry(saga=saga, changes=(Fail("no"),))])
        return
    for name in STEPS:
        writing.write([Entry(saga=saga, step=step_entry(StepStatus.DONE, step=name))])


def lose(saga: Claimed) -> None:
    """Another worker has it now."""
    Saga.objects.filter(id=saga.id).update(epoch=saga.epoch + 1, worker="next")


def steps() -> dict[str, tuple[str, int]]:
    rows = SagaStep.objects.select_related("saga")
    return {f"{row.saga.key} {row.step}": (row.status, row.attempt) for row in rows}


def row(saga: Claimed) -> Saga:
    return Saga.objects.get(id=saga.id)


@pytest.mark.django_db
class TestWriting:
    """`journal.write` itself."""

    def test_nothing(self) -> None:
        assert writing.write([]) == []

    def test_entries_of_many_sagas_in_one_transaction(
        self, django_assert_max_num_queries: Any
    ) -> None:
        """However many they are: a handful of statements."""
        entries = [started(saga) for saga in claimed(50)]
        with django_assert_max_num_queries(8):
            assert writing.write(entries) == [WRITTEN] * 50
        assert SagaStep.objects.filter(status="started").count() == 50

    def test_the_fenced_are_left_out_and_the_others_written(self) -> None:
        sagas = claimed(3)
        lose(sagas[1])
        Saga.objects.filter(id=sagas[2].id).update(epoch=0)
        verdicts = writing.write([started(saga, BeginPivot()) for saga in sagas])
        assert verdicts == [WRITTEN, FENCED, FENCED]
        assert steps() == {"K-0 stay": ("started", 1)}
        assert [row(saga).past_pivot for saga in sagas] == [True, False, False]

    def test_one_that_is_gone_too(self) -> None:
        sagas = claimed(2)
        Saga.objects.get(id=sagas[0].id).delete()
        assert writing.write([started(saga) for saga in sagas]) == [FENCED, WRITTEN]
        assert steps() == {"K-1 stay": ("started", 1)}

    @pytest.mark.parametrize("attempt", [1, 2])
    def test_an_attempt_before_the_current_one_is_not(self, attempt: int) -> None:
        """Nor what would follow from it: a late thread of the same worker."""
        (saga,) = claimed(1)
        writing.write([started(saga, attempt=3)])
        late = Entry(
            saga=saga,
            step=step_entry(StepStatus.FAILED, attempt=attempt),
            changes=(Fail("late"), Wait(60), BeginPivot()),
        )
        assert writing.write([late]) == [FENCED]
        assert steps() == {"K-0 stay": ("started", 3)}
        found = row(saga)
        assert (found.failure, found.status, found.past_pivot) == ("", "running", False)
        assert not SagaAttempt.objects.exists()

    @pytest.mark.parametrize("write", [writing.write, writing._write_in_turn])
    def test_the_attempt_before_is_kept_as_it_was(self, write: Write) -> None:
        first, second = claimed(2)
        lost = step_entry(StepStatus.UNKNOWN, error="lost", traceback="where")
        write([Entry(saga=first, step=lost), started(second)])
        before = SagaStep.objects.get(saga_id=first.id)
        next_one = started(first, attempt=2)
        for _ in range(2):  # again, after a commit whose answer was lost
            assert write([next_one, started(second)]) == [WRITTEN] * 2
        [kept] = SagaAttempt.objects.all()
        assert (kept.saga_id, kept.attempt, kept.status) == (first.id, 1, "unknown")
        assert (kept.error, kept.traceback, kept.worker) == ("lost", "where", first.worker)
        assert (kept.started_at, kept.at) == (before.started_at, before.finished_at)
        after = SagaStep.objects.get(saga_id=first.id)
        assert (after.status, after.error, after.traceback) == ("started", "", "")

    @pytest.mark.parametrize("write", [writing.write, writing._write_in_turn])
    def test_a_settled_step_is_no_attempt(self, write: Write) -> None:
        (saga,) = claimed(1)
        write([Entry(saga=saga, step=step_entry(StepStatus.DONE))])
        assert write([started(saga, attempt=2)]) == [FENCED]
        assert not SagaAttempt.objects.exists()

    def test_beside_one_of_another_saga_that_is_current(self) -> None:
        first, second = claimed(2)
        writing.write([started(first, attempt=2)])
        late = started(first, Fail("late"), attempt=1)
        assert writing.write([late, started(second, Fail("no"))]) == [FENCED, WRITTEN]
        assert [row(saga).failure for saga in (first, second)] == ["", "no"]

    def test_repeated_it_changes_nothing(self) -> None:
        """After a commit whose answer was lost."""
        (saga,) = claimed(1)
        entry = Entry(
            saga=saga,
            step=step_entry(StepStatus.FAILED, failures=1, error="no"),
            changes=(Fail("no"),),
        )
        assert writing.write([entry]) == [WRITTEN]
        before = list(SagaAttempt.objects.values()), Saga.objects.values().get()
        steps_before = SagaStep.objects.values("status", "attempt", "failures", "error").get()
        assert writing.write([entry]) == [WRITTEN]
        assert (list(SagaAttempt.objects.values()), Saga.objects.values().get()) == before
        assert (
            SagaStep.objects.values("status", "attempt", "failures", "error").get() == steps_before
        )

    def test_the_first_failure_decides(self) -> None:
        (saga,) = claimed(1)
        writing.write([Entry(saga=saga, changes=(Fail("first", cancelled=True),))])
        writing.write([Entry(saga=saga, changes=(Fail("second"),))])
        found = row(saga)
        assert (found.status, found.failure, found.cancelled) == ("cancelling", "first", True)

    def test_a_failure_takes_back_a_pivot_that_said_no(self) -> None:
        (saga,) = claimed(1)
        writing.write([started(saga, BeginPivot())])
        assert row(saga).past_pivot
        no = Entry(saga=saga, step=step_entry(StepStatus.FAILED), changes=(Fail("no"),))
        writing.write([no])
        found = row(saga)
        assert (found.status, found.past_pivot) == ("compensating", False)

    def test_a_wait_lets_go(self) -> None:
        first, second = claimed(2)
        before = timezone.now()
        wait = Entry(saga=first, changes=(Wait(100.0),))
        assert writing.write([wait, started(second)]) == [WRITTEN] * 2
        found = row(first)
        assert (found.status, found.worker, found.epoch) == ("waiting", "", first.epoch)
        rest = timedelta(seconds=100)
        assert before - SECOND < found.next_run_at - rest < timezone.now() + SECOND
        assert (row(second).status, row(second).worker) == ("running", "w")

    def test_a_wait_where_a_cancel_waits_is_none(self) -> None:
        (saga,) = claimed(1)
        request_cancel(saga.id, who="ann", reason="rain")
        verdict = Written("rain")
        assert writing.write([Entry(saga=saga, changes=(Wait(100.0),))]) == [verdict]
        assert row(saga).next_run_at <= timezone.now()

    def test_a_wait_of_one_that_is_being_cancelled_is_one(self) -> None:
        (saga,) = claimed(1)
        request_cancel(saga.id, who="ann", reason="rain")
        writing.write([Entry(saga=saga, changes=(Fail("rain", cancelled=True),))])
        writing.write([Entry(saga=saga, changes=(Wait(100.0),))])
        assert (row(saga).next_run_at - timezone.now()).total_seconds() > 90

    def test_unless_cancelled(self) -> None:
        first, second = claimed(2)
        request_cancel(first.id, who="ann", reason="rain")
        group = [
            Entry(saga=saga, step=step_entry(), changes=(BeginPivot(),), unless_cancelled=True)
            for saga in (first, second)
        ]
        verdicts = writing.write(group)
        assert verdicts == [Cancelled("rain"), WRITTEN]
        assert steps() == {"K-1 stay": ("started", 1)}
        assert [row(saga).past_pivot for saga in (first, second)] == [False, True]

    def test_otherwise_the_cancel_is_only_told(self) -> None:
        (saga,) = claimed(1)
        request_cancel(saga.id, who="ann", reason="rain")
        verdict = Written("rain")
        assert writing.write([started(saga)]) == [verdict]

    def test_a_pivot_does_not_begin_where_a_cancel_waits(self) -> None:
        """Whatever the entry says: a saga has the one or the other."""
        (saga,) = claimed(1)
        request_cancel(saga.id, who="ann", reason="rain")
        writing.write([started(saga, BeginPivot())])
        assert not row(saga).past_pivot

    @pytest.mark.parametrize("ending", [Ending.COMPLETED, Ending.ROLLED_BACK])
    def test_an_end_and_nothing_after_it(self, ending: Ending) -> None:
        first, second = claimed(2)
        for saga in (first, second):
            ready_for(saga, ending)
        lose(second)
        ends = [Entry(saga=saga, changes=(End(ending, STEPS),)) for saga in (first, second)]
        assert writing.write(ends) == [WRITTEN, FENCED]
        found = row(first)
        assert found.status == ending.value
        assert found.finished_at is not None
        assert row(second).status != ending.value
        assert row(second).finished_at is None
        other = Ending.COMPLETED if ending is Ending.ROLLED_BACK else Ending.ROLLED_BACK
        writing.write([Entry(saga=first, changes=(End(other, STEPS),))])
        assert (row(first).status, row(first).finished_at) == (found.status, found.finished_at)

    def test_ends_of_both_kinds_in_one_group(self) -> None:
        sagas = claimed(4)
        endings = [Ending.COMPLETED, Ending.ROLLED_BACK] * 2
        for saga, ending in zip(sagas, endings, strict=True):
            ready_for(saga, ending)
        writing.write(
            [
                Entry(saga=saga, changes=(End(ending, STEPS),))
                for saga, ending in zip(sagas, endings, strict=True)
            ]
        )
        assert [row(saga).status for saga in sagas] == [ending.value for ending in endings]

    def test_two_steps_of_one_saga(self) -> None:
        (saga,) = claimed(1)
        group = [started(saga, step="left"), started(saga, BeginPivot(), step="right")]
        assert writing.write(group) == [WRITTEN] * 2
        assert steps() == {"K-0 left": ("started", 1), "K-0 right": ("started", 1)}
        assert row(saga).past_pivot

    @pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 20_000, "'; DROP TABLE x; %s", '"{}'])
    def test_whatever_an_error_says(self, text: str) -> None:
        (saga,) = claimed(1)
        entry = Entry(
            saga=saga, step=step_entry(StepStatus.FAILED, error=text), changes=(Fail(text),)
        )
        assert writing.write([entry]) == [WRITTEN]
        assert "\0" not in SagaStep.objects.get().error
        assert row(saga).failure == SagaStep.objects.get().error != ""

    def test_progress_forgives_lost_workers_and_a_start_is_none(self) -> None:
        begin("tour", key="K-0")
        for n in range(3):
            (saga,) = [claimed_by(f"dead {n}")]
        assert row(saga).takeovers == saga.takeovers == 2
        writing.write([started(saga)])
        assert row(saga).takeovers == 2
        writing.write([Entry(saga=saga, step=step_entry(StepStatus.FAILED))])
        assert row(saga).takeovers == 0


@pytest.mark.django_db
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from(["left", "right"]),
            st.integers(1, 4),
            st.sampled_from(StepStatus),
        ),
        max_size=12,
    ),
    st.sets(st.integers(0, 3)),
)
def test_together_is_as_one_after_the_other(
    wanted: list[tuple[int, str, int, StepStatus]], lost: set[int]
) -> None:
    """A model of it: a step's row is that of its highest attempt, the fenced have none. What an
    attempt has come to is not changed any more."""
    Saga.objects.all().delete()
    sagas = claimed(4)
    for n in lost:
        lose(sagas[n])
    model: dict[str, tuple[str, int]] = {}
    for n, step, attempt, status in wanted:
        (verdict,) = writing.write(
            [Entry(saga=sagas[n], step=step_entry(status, attempt=attempt, step=step))]
        )
        key = f"K-{n} {step}"
        before, last = model.get(key, ("", 0))
        is_next = attempt > last and before not in ("done", "skipped")
        may_follow = is_next or (attempt == last and before in ("started", status.value))
        is_current = n not in lost and may_follow
        assert isinstance(verdict, Written) == is_current
        if is_current:
            model[key] = (status.value, attempt)
    assert steps() == model


def together(
    entries: Sequence[Entry],
    write: Callable[[Sequence[Entry]], list[Verdict]],
    *,
    max_group: int = group_commit.MAX_GROUP,
) -> list[Verdict | BaseException]:
    """Hand them all in at once; what each was answered."""

    async def run() -> list[Verdict | BaseException]:
        threads = Threads(1, name="tests")
        try:
            commit = GroupCommit(threads, write=write, max_group=max_group)
            puts = (commit.put(entry) for entry in entries)
            return await asyncio.gather(*puts, return_exceptions=True)
        finally:
            await asyncio.to_thread(threads.close)

    return asyncio.run(asyncio.wait_for(run(), 20))


class Recorder:
    """Writes, and keeps what it was given."""

    def __init__(self, write: Callable[[Sequence[Entry]], list[Verdict]] = writing.write) -> None:
        self.groups: list[list[Entry]] = []
        self._write = write

    def __call__(self, entries: Sequence[Entry]) -> list[Verdict]:
        self.groups.append([*entries])
        return self._write(entries)

    @property
    def sizes(self) -> list[int]:
        return [len(group) for group in self.groups]


@pytest.mark.django_db(transaction=True)
class TestGroups:
    def test_those_that_come_together_share_a_transaction(self) -> None:
        sagas = claimed(30)
        write = Recorder()
        assert together([started(saga) for saga in sagas], write) == [WRITTEN] * 30
        assert write.sizes == [30]

    def test_those_that_come_meanwhile_go_into_the_next(self) -> None:
        sagas = claimed(5)
        write = Recorder()

        async def run() -> None:
            threads = Threads(1, name="tests")
            commit = GroupCommit(threads, write=write)
            first = commit.put(started(sagas[0]))
            await asyncio.to_thread(until, lambda: write.groups)
            await asyncio.gather(*(commit.put(started(saga)) for saga in sagas[1:]))
            await first
            await asyncio.to_thread(threads.close)

        asyncio.run(asyncio.wait_for(run(), 20))
        assert write.sizes[0] == 1
        assert sum(write.sizes) == 5
        assert len(write.sizes) <= 3
        assert len(steps()) == 5

    def test_none_is_too_large(self) -> None:
        sagas = claimed(10)
        write = Recorder()
        entries = [started(saga) for saga in sagas]
        assert together(entries, write, max_group=4) == [WRITTEN] * 10
        assert write.sizes == [4, 4, 2]

    def test_each_hears_its_own_verdict(self) -> None:
        sagas = claimed(9)
        for n in (2, 5):
            lose(sagas[n])
        request_cancel(sagas[7].id, who="ann", reason="rain")
        answers = together([started(saga) for saga in sagas], Recorder())
        wanted: list[Verdict] = [WRITTEN] * 9
        wanted[2] = wanted[5] = FENCED
        wanted[7] = Written("rain")
        assert answers == wanted

    def test_one_that_breaks_the_statement_fails_alone(self) -> None:
        """And what the broken transaction wrote before is written once."""
        write = Recorder()
        attempts = [-1 if n == 3 else 1 for n in range(6)]  # which no row may have
        entries = [
            started(saga, BeginPivot(), attempt=attempt)
            for saga, attempt in zip(claimed(6), attempts, strict=True)
        ]
        answers = together(entries, write)
        sagas = [entry.saga for entry in entries]
        assert [type(answer) for answer in answers] == [
            Written if n != 3 else type(answers[3]) for n in range(6)
        ]
        assert isinstance(answers[3], Exception)
        assert write.sizes == [6, 1, 1, 1, 1, 1, 1]
        assert set(steps()) == {f"K-{n} stay" for n in range(6) if n != 3}
        assert [row(saga).past_pivot for saga in sagas] == [n != 3 for n in range(6)]

    def test_an_outage_is_everybodys(self) -> None:
        """Nobody is tried alone: a hundred would wait for a hundred timeouts."""
        sagas = claimed(5)

        def away(_: Sequence[Entry]) -> list[Verdict]:
            raise OperationalError("server closed the connection unexpectedly")

        write = Recorder(away)
        answers = together([started(saga) for saga in sagas], write)
        assert [str(answer) for answer in answers] == [
            "server closed the connection unexpectedly"
        ] * 5
        assert write.sizes == [5]

    def test_a_conflict_is_tried_alone(self) -> None:
        failures = iter([DataError("bad value")])

        def write(entries: Sequence[Entry]) -> list[Verdict]:
            for error in failures:
                raise error
            return writing.write(entries)

        recorder = Recorder(write)
        assert together([started(saga) for saga in claimed(3)], recorder) == [WRITTEN] * 3
        assert recorder.sizes == [3, 1, 1, 1]

    def test_one_whose_saga_is_gone_meanwhile_holds_up_nobody(self) -> None:
        """Its task was ended while its entry waited."""
        sagas = claimed(3)

        async def run() -> list[Verdict]:
            threads = Threads(1, name="tests")
            commit = GroupCommit(threads, write=Recorder())
            tasks = [commit.put(started(saga)) for saga in sagas]
            await asyncio.sleep(0)
            tasks[1].cancel()
            answers = [await tasks[0], await tasks[2]]
            answers.append(await commit.put(started(sagas[0], attempt=2)))
            await asyncio.to_thread(threads.close)
            return answers

        assert asyncio.run(asyncio.wait_for(run(), 20)) == [WRITTEN] * 3

    def test_a_thread_that_breaks_is_told_to_each(self) -> None:
        def broken(_: Sequence[Entry]) -> list[Verdict]:
            raise MemoryError

        answers = together([started(saga) for saga in claimed(2)], broken)
        assert [type(answer) for answer in answers] == [MemoryError] * 2

    def test_the_order_of_a_saga_is_kept(self) -> None:
        """Started, then failed or done; whatever the others do."""
        sagas = claimed(8)
        outcomes = {1: StepStatus.FAILED, 2: StepStatus.FAILED, 3: StepStatus.DONE}

        async def run() -> None:
            threads = Threads(1, name="tests")
            commit = GroupCommit(threads)

            async def one(saga: Claimed) -> None:
                for attempt, outcome in outcomes.items():
                    await commit.put(started(saga, attempt=attempt))
                    ended = step_entry(outcome, attempt=attempt)
                    await commit.put(Entry(saga=saga, step=ended))

            await asyncio.gather(*(one(saga) for saga in sagas))
            await asyncio.to_thread(threads.close)

        asyncio.run(asyncio.wait_for(run(), 20))
        assert steps() == {f"K-{n} stay": ("done", 3) for n in range(8)}
        for saga in sagas:
            assert history_of(saga.id) == [
                ("stay:F", attempt, outcome.value) for attempt, outcome in outcomes.items()
            ]


@pytest.mark.django_db(transaction=True)
class TestInAWorker:
    def test_after_an_outage_all_try_again(self) -> None:
        failures = iter(range(4))
        real = writing.write

        def write(entries: Sequence[Entry]) -> list[Verdict]:
            if next(failures, None) is not None:
                raise OperationalError("server closed the connection unexpectedly")
            return real(entries)

        sagas = [begin("tour", key=f"K-{n}") for n in range(10)]
        with working(concurrency=10, write=write):
            until(lambda: Saga.objects.filter(status=SagaStatus.COMPLETED).count() == len(sagas))
        assert set(SagaStep.objects.values_list("attempt", "failures")) == {(1, 0)}

    @pytest.mark.usefixtures("one_by_one")
    def test_many_side_by_side_take_fewer_transactions_than_entries(self) -> None:
        write = Recorder()
        sagas = {begin("tour", key=f"K-{n}"): n for n in range(60)}
        with working(concurrency=60, write=write):
            until(lambda: Saga.objects.filter(status=SagaStatus.COMPLETED).count() == len(sagas))
        # `started`, `done` and the end of each.
        assert sum(write.sizes) == 3 * len(sagas)
        assert len(write.sizes) < 2 * len(sagas)
        seen: dict[UUID, list[str]] = {}
        for entries in write.groups:
            for entry in entries:
                what = entry.step.status.value if entry.step else "end"
                seen.setdefault(entry.saga.id, []).append(what)
        assert set(map(tuple, seen.values())) == {("started", "done", "end")}

    @pytest.mark.on_postgresql
    def test_workers_that_write_the_same_sagas_do_not_meet_crosswise(self) -> None:
        """Rows are locked in one order, whatever the order of the entries; nobody waits for them,
        so what is busy is written again."""
        sagas = claimed(40)
        entries = [started(saga) for saga in sagas]
        errors: list[BaseException] = []

        def written_by(order: list[Entry]) -> bool:
            verdicts = writing.write(order)
            assert {*verdicts} <= {WRITTEN, BUSY}
            return {*verdicts} == {WRITTEN}

        def write(order: list[Entry]) -> None:
            try:
                for _ in range(15):
                    until(lambda: written_by(order))
            except BaseException as error:  # noqa: BLE001 - looked at below
                errors.append(error)
            finally:
                connection.close()

        threads = [
            threading.Thread(target=write, args=(order,))
            for order in (entries, entries[::-1], entries[20:] + entries[:20])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        assert errors == []

    @pytest.mark.on_postgresql
    def test_a_row_that_somebody_holds_holds_up_no_other(self) -> None:
        """A cancel by a process that was frozen, for one."""
        mine, theirs, lost = claimed(3)
        lose(lost)
        holding = threading.Event()

        @transaction.atomic
        def hold(stop: threading.Event) -> None:
            [*Saga.objects.select_for_update().filter(id__in=[theirs.id, lost.id])]
            holding.set()
            stop.wait(TIMEOUT)

        with in_thread(hold):
            until(holding.is_set)
            verdicts = writing.write([started(saga) for saga in (mine, theirs, lost)])
        assert verdicts == [WRITTEN, BUSY, FENCED]
        assert writing.write([started(theirs)]) == [WRITTEN]

    @pytest.mark.on_postgresql
    def test_a_saga_whose_row_was_busy_gets_to_its_end(self) -> None:
        sagas = [begin("tour", key=f"K-{n}") for n in range(8)]

        def meddle(stop: threading.Event) -> None:
            while not stop.wait(0.001):
                with transaction.atomic():
                    [*Saga.objects.select_for_update().filter(id__in=sagas).order_by("id")]

        with in_thread(meddle), working(concurrency=8):
            until(lambda: Saga.objects.filter(status="completed").count() == len(sagas))
        assert set(SagaStep.objects.values_list("attempt", "failures")) == {(1, 0)}


def test_where_the_loop_ends_while_a_group_is_written_nobody_waits_for_ever() -> None:
    threads = Threads(1, name="tests")
    began, release = threading.Event(), threading.Event()

    def write(_: Sequence[Entry]) -> list[Verdict]:
        began.set()
        release.wait(TIMEOUT)
        return []

    async def main() -> None:
        written = GroupCommit(threads, write=write).put(None)  # type: ignore[arg-type]

        async def saga() -> None:
            try:
                await asyncio.sleep(TIMEOUT)
            finally:
                await asyncio.gather(written, return_exceptions=True)  # as Writer.close() does

        running = asyncio.create_task(saga())
        await asyncio.to_thread(began.wait, TIMEOUT)
        assert not running.done()

    try:
        asyncio.run(asyncio.wait_for(main(), TIMEOUT))
        assert not release.is_set()
    finally:
        release.set()
        threads.close()
