"""The fixtures of `sagas.testing`, on sagas of this module's own."""

import subprocess
import sys
from collections.abc import Callable
from uuid import UUID

import pytest
from sagaz import Saga as SagaClass
from sagaz import action, compensate

from orders.models import Product
from sagas import StepRejected, call_in_thread
from sagas.crash_points import Point
from sagas.models import Saga
from sagas.testing import CrashMatrix, Worker
from tests.unit.sagas.saga_running import Context, Register, begin, journal_of

pytestmark = pytest.mark.django_db(transaction=True)

Run = Callable[..., Worker]
Walk = Callable[..., CrashMatrix]
HERE = [__name__]


def note(product_id: str) -> None:
    Product.objects.get_or_create(product_id=product_id)


def count(product_id: str) -> None:
    """Not idempotent: each call adds one."""
    product, _ = Product.objects.get_or_create(product_id=product_id)
    Product.objects.filter(pk=product.pk).update(name=f"{product.name}I")


class Visit(SagaClass):
    """A local step and an external one, which may be told to say no."""

    saga_name = "visit"

    @action("enter")
    def enter(self, ctx: Context) -> None:
        count(f"enter-{ctx['n']}")

    @compensate("enter")
    def leave(self, ctx: Context) -> None:
        count(f"leave-{ctx['n']}")

    @action("talk", depends_on=["enter"])
    async def talk(self, ctx: Context) -> None:
        if ctx.get("refused"):
            raise StepRejected("nobody listens")
        if ctx.get("away"):
            raise RuntimeError("nobody is there")
        await call_in_thread(note, f"talk-{ctx['n']}")


class Careless(SagaClass):
    """Its external step has one more effect each time that it is called."""

    saga_name = "careless"

    @action("shout")
    async def shout(self, ctx: Context) -> None:
        await call_in_thread(count, f"shout-{ctx['n']}")


MATRIX = """\
         claimed  inside_local_step  started  called  step_done  before_terminal_commit  after_terminal_commit
(saga)   ok       -                  -        -       -          ok                      ok
enter:F  -        ok                 -        -       ok         -                       -
talk:F   -        -                  ok       ok      ok         -                       -\
"""  # noqa: E501 - as it is printed


@pytest.fixture(autouse=True)
def _sagas(register: Register) -> None:
    register(Visit, Careless)


def begin_visit(n: int) -> UUID:
    return begin("visit", key=str(n), n=n)


def begin_refused(n: int) -> UUID:
    return begin("visit", key=str(n), n=n, refused=True)


def begin_careless(n: int) -> UUID:
    return begin("careless", key=str(n), n=n)


def effects(n: int) -> dict[str, str]:
    rows = Product.objects.filter(product_id__endswith=f"-{n}").values_list("product_id", "name")
    return {product_id.split("-")[0]: name for product_id, name in rows}


class TestACrash:
    def test_leaves_what_was_committed_and_another_worker_finishes(
        self, saga_crash: Run, saga_worker: Run
    ) -> None:
        saga = begin_visit(1)
        saga_crash(Point.CALLED, "talk:F", imports=HERE)
        assert journal_of(saga) == {"enter:F": ("done", 1), "talk:F": ("started", 1)}
        saga_worker(saga, imports=HERE, lease=0.5)
        assert Saga.objects.get(id=saga).status == "completed"
        assert Saga.objects.get(id=saga).epoch == 2

    def test_that_never_comes_is_told(self, saga_crash: Run) -> None:
        begin_visit(1)
        with pytest.raises(AssertionError) as raised:
            saga_crash(Point.FAILURE_DECIDED, "talk:F", imports=HERE)
        assert "never got to failure_decided talk:F; it reached: claimed, " in str(raised.value)
        assert "called talk:F" in str(raised.value)

    def test_nor_where_there_is_nothing_to_run(self, saga_crash: Run) -> None:
        with pytest.raises(AssertionError, match="it reached: nothing"):
            saga_crash(Point.CLAIMED)

    def test_nor_within_its_time(self, saga_crash: Run) -> None:
        begin("visit", n=1, away=True)
        with pytest.raises(AssertionError, match=r"not within 0\.4 s: .*never got to step_done"):
            saga_crash(Point.STEP_DONE, "talk:F", imports=HERE, backoff=60.0, patience=0.4)

    def test_by_an_error_of_its_own_is_told(self, saga_crash: Run) -> None:
        begin_visit(1)
        with pytest.raises(AssertionError, match="No module named 'no_such_module'"):
            saga_crash(Point.CLAIMED, imports=["no_such_module"])

    @pytest.mark.django_db(transaction=False)
    def test_needs_a_test_that_commits(self, saga_crash: Run) -> None:
        with pytest.raises(AssertionError, match="transaction=True"):
            saga_crash(Point.CLAIMED)


class TestHolding:
    def test_it_goes_on_when_told(self, saga_hold: Run) -> None:
        saga = begin_visit(1)
        held = saga_hold(Point.STARTED, "talk:F", imports=HERE)
        assert effects(1) == {"enter": "I"}
        held.resume()
        assert held.stop() == 0
        assert effects(1) == {"enter": "I", "talk": ""}
        assert Saga.objects.get(id=saga).status == "completed"

    def test_at_the_very_end(self, saga_hold: Run) -> None:
        begin_visit(1)
        held = saga_hold(Point.AFTER_TERMINAL_COMMIT, imports=HERE)
        held.resume()
        assert held.stop() == 0

    def test_at_what_never_comes_is_told(self, saga_hold: Run) -> None:
        begin_visit(1)
        with pytest.raises(AssertionError, match="never got to called enter:F"):
            saga_hold(Point.CALLED, "enter:F", imports=HERE)


class TestTheWalk:
    def test_of_a_saga_that_completes(self, saga_crash_walk: Walk) -> None:
        matrix = saga_crash_walk(begin=begin_visit, effects=effects, imports=HERE, lease=0.5)
        assert effects(0) == {"enter": "I", "talk": ""}
        assert str(matrix) == MATRIX

    def test_of_one_that_is_undone(self, saga_crash_walk: Walk) -> None:
        matrix = saga_crash_walk(begin=begin_refused, effects=effects, imports=HERE, lease=0.5)
        assert effects(0) == {"enter": "I", "leave": "I"}
        assert "enter:C" in str(matrix)
        assert "failure_decided" in str(matrix)

    def test_fails_where_an_effect_comes_twice(self, saga_crash_walk: Walk) -> None:
        with pytest.raises(AssertionError) as raised:
            saga_crash_walk(begin=begin_careless, effects=effects, imports=HERE, lease=0.5)
        text = str(raised.value)
        assert "called shout:F, saga" in text
        assert "shout is 'II', expected 'I'" in text
        assert text.count("differs") == 1, "only the crash after the call repeats it"


def test_importing_sagas_imports_no_pytest() -> None:
    code = "import sagas, sys; assert 'pytest' not in sys.modules, 'it does'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_is_imported_before_django_has_its_models() -> None:
    """As the process does that workers are forked from, and a project's conftest."""
    subprocess.run([sys.executable, "-c", "import sagas.testing"], check=True)
