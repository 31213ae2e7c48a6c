"""Of steps side by side that write one key, the last to finish counts, after a crash too."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from sagaz import Saga as SagaClass
from sagaz import action, compensate

from orders.models import Product
from sagas import StepRejected, call_in_thread
from sagas.crash_points import Point
from sagas.journal import writing
from sagas.journal.entries import Entry, StepEntry, Written
from sagas.journal.final_context import final_context
from sagas.journal.records import StepRecord
from sagas.models import Saga, SagaStep, StepStatus
from sagas.run import state
from sagas.run.state import RunState
from sagas.testing import saga_crash, saga_worker, saga_workers
from tests.processes import ROOT
from tests.unit.sagas.saga_running import Context, Register, begin
from tests.unit.sagas.scripted_sagas import claimed_by
from tests.unit.waiting import until

__all__ = ["saga_crash", "saga_worker", "saga_workers"]

HERE = [__name__]


def note(name: str, what: str) -> None:
    product, _ = Product.objects.get_or_create(product_id=name)
    Product.objects.filter(pk=product.pk).update(name=f"{product.name} {what}")


def seen(name: str) -> list[str]:
    return Product.objects.get(product_id=name).name.split()


class Sides(SagaClass):
    """`left` and `right` write one key; `ctx["last"]` says which of them ends last. What stands
    behind them notes what it sees, at each of its attempts."""

    saga_name = "sides"

    @action("first")
    def first(self, ctx: Context) -> None: ...

    @compensate("first")
    async def unfirst(self, ctx: Context) -> None:
        await call_in_thread(note, "undone", ctx["undone"])

    @action("left", depends_on=["first"])
    async def left(self, ctx: Context) -> Context:
        return await self._side("left", "F", ctx, "done")

    @compensate("left")
    async def unleft(self, ctx: Context) -> Context:
        return await self._side("left", "C", ctx, "undone")

    @action("right", depends_on=["first"])
    async def right(self, ctx: Context) -> Context:
        return await self._side("right", "F", ctx, "done")

    @compensate("right")
    async def unright(self, ctx: Context) -> Context:
        return await self._side("right", "C", ctx, "undone")

    @action("then", depends_on=["left", "right"])
    async def then(self, ctx: Context) -> None:
        await call_in_thread(note, "done", ctx["done"])
        if ctx.get("fails"):
            raise StepRejected("it shall be undone")

    async def _side(self, name: str, kind: str, ctx: Context, key: str) -> Context:
        return await call_in_thread(self._wait, name, kind, ctx, key)

    def _wait(self, name: str, kind: str, ctx: Context, key: str) -> Context:
        if ctx["last"] == name:
            other = SagaStep.objects.exclude(step__in=[name, "first", "then"])
            until(other.filter(kind=kind, status="done").exists)
        return {key: name}


@pytest.mark.django_db(transaction=True)
class TestThroughACrash:
    @pytest.fixture(autouse=True)
    def _sides(self, register: Register) -> None:
        register(Sides)

    @pytest.mark.parametrize("last", ["left", "right"])
    def test_the_next_step_sees_what_it_saw(
        self, last: str, saga_crash: Any, saga_worker: Any
    ) -> None:
        saga = begin("sides", last=last)
        saga_crash(Point.CALLED, "then:F", imports=HERE)
        saga_worker(saga, imports=HERE, lease=0.5)
        assert seen("done") == [last, last]
        assert final_context(Saga.objects.get(id=saga))["done"] == last

    @pytest.mark.parametrize("last", ["left", "right"])
    def test_the_next_compensation_too(self, last: str, saga_crash: Any, saga_worker: Any) -> None:
        saga = begin("sides", last=last, fails=True)
        saga_crash(Point.CALLED, "first:C", imports=HERE)
        saga_worker(saga, imports=HERE, lease=0.5)
        assert seen("undone") == [last, last]
        assert final_context(Saga.objects.get(id=saga))["undone"] == last


@pytest.mark.on_sqlite
@pytest.mark.parametrize("seed", ["0", "1"])
def test_whatever_the_hash_seed_is(seed: str, tmp_path: Path) -> None:
    """With one of them a set of the two begins with left, with the other with right."""
    test = f"{__file__}::TestThroughACrash::test_the_next_step_sees_what_it_saw"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        env=os.environ | {"PYTHONHASHSEED": seed, "DATABASE_URL": f"sqlite:///{tmp_path}/db"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "2 passed" in done.stdout


AT = datetime(2026, 1, 2, tzinfo=UTC)


def run_of(*ends: datetime, now: Callable[[], datetime] = timezone.now) -> RunState:
    """A run of a saga that a worker has taken over, with steps that ended then."""

    class Taken:
        context: Context = {}
        failure = cancel_reason = ""
        cancelled = False
        seconds_left = None
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
