"""Of steps side by side that write one key, the last to finish counts, after a crash too."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sagaz import Saga as SagaClass
from sagaz import action, compensate

from orders.models import Product
from sagas import StepRejected, call_in_thread
from sagas.crash_points import Point
from sagas.journal.final_context import final_context
from sagas.models import Saga, SagaStep
from tests.processes import ROOT
from tests.unit.sagas.saga_running import Context, Register, begin
from tests.unit.waiting import until

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
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-migrations", test],
        env=os.environ | {"PYTHONHASHSEED": seed, "DATABASE_URL": f"sqlite:///{tmp_path}/db"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "2 passed" in done.stdout
