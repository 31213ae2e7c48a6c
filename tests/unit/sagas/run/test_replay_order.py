"""Of steps side by side that write one key, the last to finish counts."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from sagaz import Saga as SagaClass
from sagaz import action, compensate

from sagas.journal import writing
from sagas.journal.entries import Entry, StepEntry, Written
from sagas.journal.records import StepRecord
from sagas.models import SagaStep, StepStatus
from sagas.run import state
from sagas.run.state import RunState
from tests.unit.sagas.saga_running import Context, Register, begin
from tests.unit.sagas.scripted_sagas import claimed_by


class Sides(SagaClass):
    """Two steps side by side."""

    saga_name = "sides"
    parallel_roots = True

    @action("left")
    async def left(self, ctx: Context) -> None: ...

    @compensate("left")
    async def unleft(self, ctx: Context) -> None: ...

    @action("right")
    async def right(self, ctx: Context) -> None: ...

    @compensate("right")
    async def unright(self, ctx: Context) -> None: ...


AT = datetime(2026, 1, 2, tzinfo=UTC)


def run_of(*ends: datetime, now: Callable[[], datetime] = timezone.now) -> RunState:
    """A run of a saga that a worker has taken over, with steps that ended then."""

    class Taken:
        context: Context = {}
        failure = cancel_reason = ""
        cancelled = False
        deadline_at = None
        steps = {(str(n), "F"): StepRecord("done", 1, 0, {}, "", end) for n, end in enumerate(ends)}

    return RunState(Taken(), now=now)  # type: ignore[arg-type]


class TestTheOrder:
    def test_is_strict_where_the_clock_stands_or_goes_back(self) -> None:
        clock = iter([AT, AT, AT - timedelta(hours=1), AT + timedelta(hours=1)])
        run = run_of(now=lambda: next(clock))
        ends = [run.finished_at() for _ in range(4)]
        assert ends == sorted(set(ends))
        assert ends[3] == AT + timedelta(hours=1)

    def test_goes_on_behind_what_another_worker_has_written(self) -> None:
        ahead = timezone.now() + timedelta(hours=1)
        assert run_of(ahead, AT).finished_at() == ahead + state.TICK

    def test_is_one_for_all_threads(self) -> None:
        run = run_of()
        ends: list[datetime] = []
        threads = [
            threading.Thread(target=lambda: ends.extend(run.finished_at() for _ in range(500)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(ends)) == len(ends) == 2000

    def test_holds_whichever_result_comes_first(self) -> None:
        """A step may end before another one, and its commit after that one's."""
        for order in ((0, 1), (1, 0)):
            run, context = run_of(), dict[str, Any]()
            results = [({"key": "older", "a": 1}, AT), ({"key": "newer", "b": 2}, AT + state.TICK)]
            for n in order:
                context |= run.newest(*results[n])
            assert context == {"key": "newer", "a": 1, "b": 2}

    def test_of_a_step_without_an_end_comes_first(self) -> None:
        run = run_of()
        assert run.newest({"key": "old"}, None) == {"key": "old"}
        assert run.newest({"key": "new"}, AT) == {"key": "new"}
        assert run.newest({"key": "old", "a": 1}, None) == {"a": 1}
        assert run.newest(None, AT) == {}


@pytest.mark.django_db(transaction=True)
def test_ends_that_are_written_together_stay_apart(register: Register) -> None:
    register(Sides)
    begin("sides")
    claimed = claimed_by("w", lease=10)
    ends = [AT, AT + state.TICK]
    group = [
        Entry(
            saga=claimed,
            step=StepEntry(
                step=name, kind="F", status=StepStatus.DONE, attempt=1, failures=0, started_at=AT,
                result="{}", finished_at=end,
            ),
        )
        for name, end in zip(["right", "left"], ends, strict=True)
    ]  # fmt: skip
    assert all(isinstance(verdict, Written) for verdict in writing.write(group))
    rows = SagaStep.objects.order_by("finished_at").values_list("step", "finished_at")
    assert list(rows) == [("right", ends[0]), ("left", ends[1])]
