"""Sagas of the tests' own, run by a worker in a thread."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone
from sagaz import Saga as SagaClass
from sagaz import action, compensate

from orders.models import Product
from outbox import enqueue
from outbox.models import OutboxMessage
from saga_runtime.backoff import Backoff
from saga_runtime.correlation import Correlation, current
from saga_runtime.database_threads import Threads
from saga_runtime.interventions import By
from sagas import Ending, SagaOutcome, StepRejected, call_in_thread, forward_key, idempotency_key
from sagas.definition.hooks import Hook
from sagas.errors import LeaseLost
from sagas.journal import claims, final_transaction, local_step, sql, statements, writing
from sagas.journal.group_commit import GroupCommit
from sagas.journal.records import Claimed
from sagas.models import Saga, SagaStep
from sagas.operations.interventions import retry
from sagas.run.resources import RunResources
from sagas.run.saga_run import SagaRun
from sagas.worker.executor import Executor
from tests.unit.sagas import journal_entries as entries
from tests.unit.sagas.saga_running import (
    CORRELATION,
    HOUR,
    QUICK,
    TRACEPARENT,
    Context,
    Register,
    begin,
    journal_of,
    run_to_end,
    working,
)
from tests.unit.sagas.scripted_sagas import Part, Script
from tests.unit.waiting import TIMEOUT, until

pytestmark = pytest.mark.django_db(transaction=True)

SetHook = Callable[[str, Hook], None]


def write(product_id: str) -> None:
    """A write of a step, to be seen or not."""
    Product.objects.create(product_id=product_id)


def written() -> set[str]:
    return set(Product.objects.values_list("product_id", flat=True))


class Trip(SagaClass):
    """Three steps; what a test hangs into `script` happens within. `calls` is what was run."""

    saga_name = "trip"
    calls: list[str]
    script: dict[str, Callable[[Context], Any]]

    def _run(self, name: str, ctx: Context) -> Any:
        self.calls.append(name)
        return self.script[name](ctx) if name in self.script else None

    @action("fly", max_retries=2)
    def fly(self, ctx: Context) -> Any:
        write("flight")
        return self._run("fly", ctx)

    @compensate("fly", max_retries=2)
    def unfly(self, ctx: Context) -> Any:
        Product.objects.filter(product_id="flight").delete()
        return self._run("unfly", ctx)

    @action("stay", depends_on=["fly"], max_retries=2, timeout_seconds=0.2)
    async def stay(self, ctx: Context) -> Any:
        result = self._run("stay", ctx)
        return await result if asyncio.iscoroutine(result) else result

    @compensate("stay", max_retries=2)
    async def unstay(self, ctx: Context) -> Any:
        result = self._run("unstay", ctx)
        return await result if asyncio.iscoroutine(result) else result

    @action("eat", depends_on=["stay"], max_retries=2)
    def eat(self, ctx: Context) -> Any:
        write("meal")
        return self._run("eat", ctx)

    @compensate("eat")
    def uneat(self, ctx: Context) -> Any:
        return self._run("uneat", ctx)


class Slow(SagaClass):
    """Two steps, of which the first ends when a test says so."""

    saga_name = "slow"
    calls: list[str]
    wait_for: Callable[[], bool]

    @action("first")
    async def first(self, _: Context) -> None:
        self.calls.append("first")
        await call_in_thread(until, type(self).wait_for)

    @action("second", depends_on=["first"])
    def second(self, _: Context) -> None:
        self.calls.append("second")


@pytest.fixture
def slow(register: Register, monkeypatch: pytest.MonkeyPatch) -> type[Slow]:
    monkeypatch.setattr(Slow, "calls", [], raising=False)
    monkeypatch.setattr(Slow, "wait_for", lambda: True, raising=False)
    register(Slow)
    return Slow


class Pair(SagaClass):
    """Two steps side by side, and one that joins them."""

    saga_name = "pair"
    calls: list[str]
    script: dict[str, Callable[[], Any]]

    @action("left", max_retries=0)
    async def left(self, _: Context) -> Any:
        self.calls.append("left")
        result = self.script.get("left", dict)()
        return await result if asyncio.iscoroutine(result) else result

    @compensate("left")
    async def unleft(self, _: Context) -> None:
        self.calls.append("unleft")

    @action("right", max_retries=1)
    def right(self, _: Context) -> Any:
        self.calls.append("right")
        return self.script.get("right", dict)()

    @compensate("right")
    def unright(self, _: Context) -> None:
        self.calls.append("unright")

    @action("join", depends_on=["left", "right"])
    def join(self, ctx: Context) -> Any:
        self.calls.append(f"join {ctx.get('l')}{ctx.get('r')}")


@pytest.fixture
def pair(register: Register, monkeypatch: pytest.MonkeyPatch) -> type[Pair]:
    monkeypatch.setattr(Pair, "calls", [], raising=False)
    monkeypatch.setattr(Pair, "script", {}, raising=False)
    register(Pair)
    return Pair


def runs_of(worker: Executor) -> list[SagaRun]:
    return [run_ for _, run_ in list(worker._running.values()) if isinstance(run_, SagaRun)]


@pytest.fixture
def trip(register: Register, monkeypatch: pytest.MonkeyPatch) -> type[Trip]:
    monkeypatch.setattr(Trip, "calls", [], raising=False)
    monkeypatch.setattr(Trip, "script", {}, raising=False)
    register(Trip)
    return Trip


def raising(error: BaseException) -> Callable[[Context], Any]:
    def raise_it(_: Context) -> Any:
        raise error

    return raise_it


def failing(*errors: BaseException, then: Any = None) -> Callable[[Context], Any]:
    """Raises each in turn, then returns."""
    left = list(errors)

    def fail(_: Context) -> Any:
        if left:
            raise left.pop(0)
        return then

    return fail


def _canceled() -> Exception:
    """What PostgreSQL says of a statement that took too long: it is not away."""
    error = sqlite3.OperationalError("canceling statement due to statement timeout")
    error.sqlite_errorname = "SQLITE_ERROR"
    error.sqlstate = "57014"  # type: ignore[attr-defined]
    return error


def claimed_by(worker: str, *, lease: float = 0) -> Claimed:
    """Claim the one saga that there is, as a worker that dies at once."""
    for_so_long = timedelta(seconds=lease)
    found = claims.claim(worker=worker, limit=9, lease=for_so_long)
    (claimed,) = found or claims.claim_suspect(worker=worker, lease=for_so_long)
    return claimed


class TestTheWayForward:
    def test_local_and_external_steps(self, trip: type[Trip]) -> None:
        saga = run_to_end(begin("trip"))
        assert (saga.status, saga.failure, saga.park_reason) == ("completed", "", "")
        assert saga.finished_at is not None
        assert trip.calls == ["fly", "stay", "eat"]
        assert journal_of(saga.id) == {
            "fly:F": ("done", 1),
            "stay:F": ("done", 1),
            "eat:F": ("done", 1),
        }
        assert written() == {"flight", "meal"}

    def test_many_side_by_side(self, trip: type[Trip]) -> None:
        def clear(_: Context) -> None:
            Product.objects.all().delete()

        sagas = [begin("trip", key=f"K-{n}") for n in range(20)]
        trip.script["fly"] = trip.script["eat"] = clear
        with working(concurrency=7):
            until(lambda: Saga.objects.filter(status="completed").count() == len(sagas))
        assert sorted(trip.calls) == sorted(["fly", "stay", "eat"] * 20)

    def test_results_and_changes_of_the_context_are_seen_by_the_next_step(
        self, trip: type[Trip]
    ) -> None:
        seen: list[Context] = []

        def fly(ctx: Context) -> Context:
            ctx["stops"].append(Decimal("1.5"))
            ctx["seen"] = True
            return {"route": ("A", "B"), "nothing": None}

        async def stay(ctx: Context) -> None:
            ctx["stops"][0] = b"changed"

        trip.script |= {"fly": fly, "stay": stay, "eat": lambda ctx: seen.append(dict(ctx))}
        saga = run_to_end(begin("trip", stops=["first"]))
        assert saga.status == "completed"
        (context,) = seen
        assert context["stops"] == [b"changed", Decimal("1.5")]
        assert context["route"] == ("A", "B")
        assert context["seen"] is True
        assert context["nothing"] is None

    def test_the_correlation_reaches_steps_and_messages(
        self, trip: type[Trip], on_finish: SetHook
    ) -> None:
        seen: list[Correlation] = []

        def send(_: object) -> None:
            seen.append(current())
            enqueue(topic="trips", key="K", type="trip.step", payload={})

        async def stay(_: Context) -> None:
            seen.append(current())
            seen.append(await call_in_thread(current))

        on_finish("trip", send)
        trip.script |= {"fly": send, "stay": stay}
        run_to_end(begin("trip"))
        assert seen == [Correlation(CORRELATION, TRACEPARENT)] * 4
        rows = OutboxMessage.objects.values_list("correlation_id", "traceparent")
        assert list(rows) == [(CORRELATION, TRACEPARENT)] * 2

    def test_each_step_has_a_key_of_its_own(self, trip: type[Trip]) -> None:
        keys: dict[str, str] = {}

        def keep(name: str) -> Callable[[Context], None]:
            return lambda _: keys.update({name: idempotency_key()})

        def undo(_: Context) -> None:
            keys["unstay"] = idempotency_key()
            keys["undone"] = forward_key()

        trip.script |= {"fly": keep("fly"), "stay": keep("stay"), "unstay": undo}
        trip.script["eat"] = raising(StepRejected("no table"))
        saga = run_to_end(begin("trip"))
        assert keys == {
            "fly": f"{saga.id}:fly:F",
            "stay": f"{saga.id}:stay:F",
            "unstay": f"{saga.id}:stay:C",
            "undone": f"{saga.id}:stay:F",
        }
        assert {s.key for s in saga.steps.all()} >= {keys["fly"], keys["stay"], keys["unstay"]}

    def test_outside_a_step_there_is_no_key(self) -> None:
        with pytest.raises(RuntimeError, match="inside a saga's step"):
            idempotency_key()


class TestLocalSteps:
    @pytest.mark.usefixtures("one_by_one")
    def test_writes_and_journal_commit_together(
        self, trip: type[Trip], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Once the journal cannot be written: neither are the step's own rows."""
        real_local, real = local_step._write_local, writing.write
        before: list[set[str]] = []

        def write_local(*args: Any) -> str:
            before.append(written())
            if len(before) == 1:
                raise RuntimeError("the journal broke")
            return real_local(*args)

        def write(entries: Any) -> Any:
            before.append(written())
            return real(entries)

        monkeypatch.setattr(local_step, "_write_local", write_local)
        saga = run_to_end(begin("trip"), write=write)
        assert saga.status == "completed"
        # Seen inside the transaction, gone after it, and there again at the second attempt.
        assert before[:3] == [{"flight"}, set(), {"flight"}]
        assert trip.calls[:2] == ["fly", "fly"]

    def test_one_that_fails_leaves_no_writes(self, trip: type[Trip]) -> None:
        trip.script["eat"] = raising(StepRejected("no table"))
        saga = run_to_end(begin("trip"))
        assert saga.status == "rolled_back"
        assert "meal" not in written()

    def test_messages_of_one_that_fails_are_not_sent(self, trip: type[Trip]) -> None:
        def eat(_: Context) -> None:
            enqueue(topic="trips", key="K", type="trip.eaten", payload={})
            raise StepRejected("no table")

        trip.script["eat"] = eat
        run_to_end(begin("trip"))
        assert not OutboxMessage.objects.exists()

    def test_a_commit_whose_answer_was_lost_is_not_repeated(
        self, trip: type[Trip], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = local_step.do_locally
        lost: list[int] = []

        def losing(*args: Any, **kwargs: Any) -> Any:
            result = real(*args, **kwargs)
            if not lost:
                lost.append(1)
                raise OperationalError("server closed the connection unexpectedly")
            return result

        monkeypatch.setattr(local_step, "do_locally", losing)
        trip.script["fly"] = lambda _: {"seat": "1A"}
        saga = run_to_end(begin("trip"))
        assert saga.status == "completed"
        assert trip.calls == ["fly", "stay", "eat"]

    def test_one_that_has_committed_is_done_whatever_follows_the_commit(
        self, trip: type[Trip], caplog: pytest.LogCaptureFixture
    ) -> None:
        trip.script["fly"] = lambda _: transaction.on_commit(partial(raising(OSError("no")), {}))
        trip.script["eat"] = lambda _: transaction.on_commit(
            partial(raising(OperationalError("away")), {})
        )
        saga = run_to_end(begin("trip"))
        assert saga.status == "completed"
        assert trip.calls == ["fly", "stay", "eat"]
        assert {*journal_of(saga.id).values()} == {("done", 1)}
        assert "fly is done, but an on_commit function of it failed" in caplog.text

    def test_a_statement_at_fault_is_a_failure_not_an_outage(self, trip: type[Trip]) -> None:
        def eat(_: Context) -> None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT * FROM a_table_that_there_is_not")

        trip.script["eat"] = eat
        saga = run_to_end(begin("trip"))
        assert saga.status == "rolled_back"
        assert "a_table_that_there_is_not" in saga.failure
        assert trip.calls.count("eat") == 3

    @pytest.mark.usefixtures("trip")
    def test_a_database_that_is_away_spends_no_attempt(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = statements.upsert_steps
        failures = iter(range(7))

        def write_journal(given: Any) -> sql.Statement:
            if next(failures, None) is not None:
                raise OperationalError("server closed the connection unexpectedly")
            return real(given)

        monkeypatch.setattr(statements, "upsert_steps", write_journal)
        saga = run_to_end(begin("trip"))
        assert saga.status == "completed"
        assert set(journal_of(saga.id).values()) == {("done", 1)}

    def test_one_that_is_async_at_heart_is_not_taken_for_done(self, trip: type[Trip]) -> None:
        async def nothing() -> None: ...

        trip.script["eat"] = lambda _: nothing()
        saga = run_to_end(begin("trip"))
        assert saga.status == "rolled_back"
        assert "async def" in saga.failure


class TestRejection:
    def test_is_not_retried_and_undone_in_reverse(self, trip: type[Trip]) -> None:
        trip.script["eat"] = raising(StepRejected("no table"))
        saga = run_to_end(begin("trip"))
        assert trip.calls == ["fly", "stay", "eat", "unstay", "unfly"]
        assert (saga.status, saga.failure) == ("rolled_back", "no table")
        assert journal_of(saga.id) == {
            "fly:F": ("done", 1),
            "stay:F": ("done", 1),
            "eat:F": ("failed", 1),
            "stay:C": ("done", 1),
            "fly:C": ("done", 1),
        }
        assert written() == set()

    def test_by_an_external_step(self, trip: type[Trip]) -> None:
        trip.script["stay"] = raising(StepRejected("full"))
        saga = run_to_end(begin("trip"))
        assert trip.calls == ["fly", "stay", "unfly"]
        assert journal_of(saga.id)["stay:F"] == ("failed", 1)

    def test_without_a_reason_it_decides_all_the_same(self, trip: type[Trip]) -> None:
        trip.script["eat"] = raising(StepRejected())
        saga = run_to_end(begin("trip"))
        assert (saga.status, saga.failure) == ("rolled_back", "StepRejected")

    def test_after_an_attempt_whose_outcome_is_unknown_the_step_is_undone_too(
        self, trip: type[Trip]
    ) -> None:
        trip.script["stay"] = failing(ConnectionError("lost"), StepRejected("full"))
        saga = run_to_end(begin("trip"))
        assert trip.calls == ["fly", "stay", "stay", "unstay", "unfly"]
        assert (saga.status, saga.failure) == ("rolled_back", "full")

    def test_a_result_that_cannot_be_kept_is_not_retried_and_named(self, trip: type[Trip]) -> None:
        trip.script["stay"] = lambda _: {"room": object()}
        saga = run_to_end(begin("trip"))
        assert trip.calls == ["fly", "stay", "unstay", "unfly"]
        assert "object" in saga.failure

    def test_changes_of_a_compensation_are_seen_by_the_next(self, trip: type[Trip]) -> None:
        seen: list[Any] = []

        def unstay(ctx: Context) -> None:
            ctx["fee"] = Decimal(5)

        trip.script |= {
            "eat": raising(StepRejected("no table")),
            "unstay": unstay,
            "unfly": lambda ctx: seen.append(ctx["fee"]),
        }
        run_to_end(begin("trip"))
        assert seen == [Decimal(5)]


class TestRetries:
    def test_with_the_same_key_until_it_works(self, trip: type[Trip]) -> None:
        keys: list[str] = []
        answers = failing(ConnectionError("1"), ConnectionError("2"), then={"room": 5})

        def stay(ctx: Context) -> Any:
            keys.append(idempotency_key())
            return answers(ctx)

        trip.script["stay"] = stay
        saga = run_to_end(begin("trip"))
        assert saga.status == "completed"
        assert keys == [f"{saga.id}:stay:F"] * 3
        assert journal_of(saga.id)["stay:F"] == ("done", 3)

    def test_up_to_max_retries_and_then_it_is_undone_itself(self, trip: type[Trip]) -> None:
        trip.script["stay"] = raising(ConnectionError("no answer"))
        saga = run_to_end(begin("trip"))
        assert trip.calls == ["fly", "stay", "stay", "stay", "unstay", "unfly"]
        assert (saga.status, saga.failure) == ("rolled_back", "ConnectionError: no answer")
        assert journal_of(saga.id)["stay:F"] == ("unknown", 3)

    def test_of_a_local_step_that_then_is_not_undone(self, trip: type[Trip]) -> None:
        trip.script["eat"] = raising(ValueError("burnt"))
        saga = run_to_end(begin("trip"))
        assert trip.calls.count("eat") == 3
        assert "uneat" not in trip.calls
        assert journal_of(saga.id)["eat:F"] == ("failed", 3)

    def test_backoff_is_exponential_and_bounded(self) -> None:
        threads = Threads(1, name="tests")
        resources = RunResources(
            journal=threads, calls=threads, group=GroupCommit(threads), jitter=lambda: 0.5
        )
        pauses = [resources.retry_pause(failures) for failures in range(1, 2000)]
        first, longest = resources.timing.retry.first, resources.timing.retry.longest
        assert pauses[:3] == [first, first * 2, first * 4]
        assert max(pauses) == longest


class TestTimeouts:
    def test_leave_the_outcome_unknown_and_the_step_is_undone_too(self, trip: type[Trip]) -> None:
        async def stay(_: Context) -> None:
            await asyncio.Event().wait()

        trip.script["stay"] = stay
        saga = run_to_end(begin("trip"))
        assert trip.calls == ["fly", "stay", "stay", "stay", "unstay", "unfly"]
        assert (saga.status, saga.failure) == ("rolled_back", "timed out")
        assert journal_of(saga.id)["stay:F"] == ("unknown", 3)

    def test_a_late_answer_is_taken_at_the_next_attempt(self, trip: type[Trip]) -> None:
        slow = [True]

        async def stay(_: Context) -> Context:
            if slow:
                slow.clear()
                await asyncio.Event().wait()
            return {"room": 5}

        trip.script["stay"] = stay
        saga = run_to_end(begin("trip"))
        assert saga.status == "completed"
        assert journal_of(saga.id)["stay:F"] == ("done", 2)


class Odd(BaseException):
    """What sagaz takes for success."""


@pytest.mark.parametrize("step", ["fly", "stay", "eat"])
@pytest.mark.parametrize(
    "error", [asyncio.CancelledError, Odd, SystemExit, KeyboardInterrupt, StopIteration]
)
def test_whatever_a_step_raises_is_a_failure(
    step: str, error: type[BaseException], trip: type[Trip]
) -> None:
    trip.script[step] = raising(error("odd"))
    saga = run_to_end(begin("trip"))
    assert saga.status == "rolled_back"
    assert error.__name__ in saga.failure
    assert trip.calls.count(step) == 3
    later = {"fly": ["stay", "eat"], "stay": ["eat"], "eat": []}[step]
    assert not set(later) & set(trip.calls)


class TestCompensations:
    def test_are_retried_by_a_budget_of_their_own(self, trip: type[Trip]) -> None:
        trip.script["eat"] = raising(StepRejected("no table"))
        trip.script["unstay"] = failing(ConnectionError("1"), ConnectionError("2"))
        saga = run_to_end(begin("trip"))
        assert saga.status == "rolled_back"
        assert journal_of(saga.id)["stay:C"] == ("done", 3)

    @pytest.mark.parametrize(
        "error", [ConnectionError("away"), StepRejected("never"), Odd("odd")], ids=repr
    )
    def test_one_that_keeps_failing_parks_the_saga(
        self, error: BaseException, trip: type[Trip], on_park: SetHook, on_finish: SetHook
    ) -> None:
        outcomes: list[SagaOutcome] = []
        on_park("trip", outcomes.append)
        on_finish("trip", outcomes.append)
        trip.script["eat"] = raising(StepRejected("no table"))
        trip.script["unstay"] = raising(error)
        saga = run_to_end(begin("trip"))
        assert saga.status == "parked"
        assert "undoing stay keeps failing" in saga.park_reason
        assert str(error) in saga.park_reason
        assert saga.failure == "no table"
        # What comes before it in the order of things stays as it is until a person has decided.
        assert "unfly" not in trip.calls
        assert written() == {"flight"}
        (outcome,) = outcomes
        assert (outcome.ending, outcome.reason) == (Ending.PARKED, saga.park_reason)

    @pytest.mark.usefixtures("trip")
    def test_a_parked_saga_is_left_alone(self) -> None:
        saga = begin("trip")
        Saga.objects.filter(id=saga).update(status="parked")
        other = begin("trip", key="K-2")
        run_to_end(other)
        assert Saga.objects.get(id=saga).epoch == 0

    def test_of_a_step_without_one_there_is_nothing_to_do(self, register: Register) -> None:
        calls: list[str] = []

        class Plain(SagaClass):
            saga_name = "plain"

            @action("a")
            def a(self, ctx: Context) -> None: ...

            @compensate("a")
            def undo_a(self, _: Context) -> None:
                calls.append("a")

            @action("b", depends_on=["a"])
            async def b(self, ctx: Context) -> None: ...

            @action("c", depends_on=["b"])
            async def c(self, _: Context) -> None:
                raise StepRejected("no")

        register(Plain)
        saga = run_to_end(begin("plain"))
        assert saga.status == "rolled_back"
        assert calls == ["a"]


class TestParallelSteps:
    def test_both_are_seen_by_the_step_that_joins_them(self, pair: type[Pair]) -> None:
        pair.script |= {"left": lambda: {"l": 1}, "right": lambda: {"r": 2}}
        assert run_to_end(begin("pair")).status == "completed"
        assert pair.calls[-1] == "join 12"

    def test_where_one_fails_the_other_is_undone(self, pair: type[Pair]) -> None:
        def reject() -> None:
            raise StepRejected("no")

        pair.script["right"] = reject
        assert run_to_end(begin("pair")).status == "rolled_back"
        assert sorted(pair.calls) == ["left", "right", "unleft"]


class TestThePivot:
    class Sale(SagaClass):
        saga_name = "sale"
        calls: list[str]
        script: dict[str, Callable[[Context], Any]]

        def _run(self, name: str, ctx: Context) -> Any:
            self.calls.append(name)
            return self.script[name](ctx) if name in self.script else None

        @action("pack")
        def pack(self, ctx: Context) -> Any:
            return self._run("pack", ctx)

        @compensate("pack")
        def unpack(self, ctx: Context) -> Any:
            return self._run("unpack", ctx)

        @action("send", depends_on=["pack"], pivot=True, max_retries=1)
        async def send(self, ctx: Context) -> Any:
            return self._run("send", ctx)

        @action("thank", depends_on=["send"], max_retries=1)
        def thank(self, ctx: Context) -> Any:
            return self._run("thank", ctx)

    @pytest.fixture
    def sale(self, register: Register, monkeypatch: pytest.MonkeyPatch) -> "type[Sale]":
        monkeypatch.setattr(self.Sale, "calls", [], raising=False)
        monkeypatch.setattr(self.Sale, "script", {}, raising=False)
        register(self.Sale)
        return self.Sale

    def test_that_says_no_is_undone(self, sale: "type[Sale]") -> None:
        sale.script["send"] = raising(StepRejected("no such address"))
        assert run_to_end(begin("sale")).status == "rolled_back"
        assert sale.calls == ["pack", "send", "unpack"]

    def test_that_keeps_failing_parks(self, sale: "type[Sale]") -> None:
        sale.script["send"] = raising(ConnectionError("away"))
        saga = run_to_end(begin("sale"))
        assert saga.status == "parked"
        assert "send failed past the point of no return" in saga.park_reason
        assert saga.failure == ""
        assert sale.calls == ["pack", "send", "send"]

    def test_that_says_no_after_an_unknown_outcome_parks(self, sale: "type[Sale]") -> None:
        sale.script["send"] = failing(ConnectionError("lost"), StepRejected("sent before"))
        assert run_to_end(begin("sale")).status == "parked"
        assert "unpack" not in sale.calls

    @pytest.mark.parametrize(
        ("error", "attempts"), [(StepRejected("no"), 1), (ValueError("broken"), 2)]
    )
    def test_a_failure_after_it_parks_and_undoes_nothing(
        self, error: Exception, attempts: int, sale: "type[Sale]"
    ) -> None:
        sale.script["thank"] = raising(error)
        saga = run_to_end(begin("sale"))
        assert saga.status == "parked"
        assert "thank failed past the point of no return" in saga.park_reason
        assert sale.calls == ["pack", "send", *["thank"] * attempts]

    def test_a_failure_after_it_in_another_worker(self, sale: "type[Sale]") -> None:
        saga = begin("sale")
        dead = claimed_by("dead")
        entries.done(dead, "pack", "F", attempt=1, result={})
        entries.done(dead, "send", "F", attempt=1, result={}, pivot=True)
        sale.script["thank"] = raising(StepRejected("no"))
        assert run_to_end(saga).status == "parked"
        assert sale.calls == ["thank"]


class TestTakingOver:
    def test_done_steps_are_not_run_again(self, trip: type[Trip]) -> None:
        seen: list[Context] = []
        saga = begin("trip", paid=Decimal("1.50"))
        dead = claimed_by("dead")
        entries.done(
            dead, "fly", "F", attempt=1, result={"price": Decimal("9.90"), "route": ("A", "B")}
        )
        trip.script["stay"] = lambda ctx: seen.append(dict(ctx))
        assert run_to_end(saga).status == "completed"
        assert trip.calls == ["stay", "eat"]
        (context,) = seen
        assert context["price"] == Decimal("9.90")
        assert isinstance(context["price"], Decimal)
        assert context["route"] == ("A", "B")
        assert context["paid"] == Decimal("1.50")

    def test_what_the_step_saw_before_it_sees_again(self, trip: type[Trip]) -> None:
        """A worker stops between two attempts; the next one goes on with the same context."""
        seen: list[Context] = []

        def fly(ctx: Context) -> Context:
            ctx["stops"].append((1, Decimal("2.0")))
            return {"when": timezone.now()}

        def stay(ctx: Context) -> None:
            seen.append(dict(ctx))
            if len(seen) == 1:
                raise ConnectionError("away")

        trip.script |= {"fly": fly, "stay": stay}
        saga = begin("trip", stops=[])
        with working(timing=replace(QUICK, retry=Backoff(first=HOUR, longest=30.0))):
            until(lambda: seen)
            until(lambda: journal_of(saga).get("stay:F") == ("unknown", 1))
            until(lambda: Saga.objects.get(id=saga).status == "waiting")
        Saga.objects.filter(id=saga).update(next_run_at=timezone.now())
        assert run_to_end(saga).status == "completed"
        assert trip.calls == ["fly", "stay", "stay", "eat"]
        assert seen[0] == seen[1]
        assert seen[0]["stops"] == [(1, Decimal("2.0"))]

    def test_a_call_that_was_being_made_is_made_again_and_spends_no_retry(
        self, trip: type[Trip]
    ) -> None:
        saga = begin("trip")
        dead = claimed_by("dead")
        entries.done(dead, "fly", "F", attempt=1, result={})
        entries.started(dead, "stay", "F", attempt=2)
        trip.script["stay"] = failing(ConnectionError("away"))
        assert run_to_end(saga).status == "completed"
        step = SagaStep.objects.get(saga_id=saga, step="stay")
        assert (step.status, step.attempt, step.failures) == ("done", 4, 1)

    @pytest.mark.usefixtures("trip")
    def test_a_living_workers_saga_is_left_alone(self) -> None:
        saga = begin("trip")
        claimed_by("alive", lease=60)
        with working():
            run_other = begin("trip", key="K-2")
            until(lambda: Saga.objects.get(id=run_other).status == "completed")
        assert Saga.objects.get(id=saga).worker == "alive"

    @pytest.mark.usefixtures("trip")
    def test_a_paused_one_too(self) -> None:
        saga = begin("trip")
        Saga.objects.filter(id=saga).update(paused=True)
        run_to_end(begin("trip", key="K-2"))
        assert Saga.objects.get(id=saga).status == "pending"

    def test_a_lease_is_renewed_while_a_step_takes_its_time(self, slow: type[Slow]) -> None:
        saga = begin("slow")
        ends: list[datetime] = []

        def is_renewed() -> bool:
            ends.append(Saga.objects.get(id=saga).next_run_at)
            return ends[-1] != ends[0]

        slow.wait_for = is_renewed
        assert run_to_end(saga, lease=1.5).status == "completed"
        assert ends[-1] > ends[0]
        assert Saga.objects.get(id=saga).epoch == 1

    def test_a_failure_that_was_decided_is_not_decided_anew(self, trip: type[Trip]) -> None:
        saga = begin("trip")
        dead = claimed_by("dead")
        entries.done(dead, "fly", "F", attempt=1, result={})
        entries.failed(dead, "stay", "F", attempt=1, error="full", decides=True)
        write("flight")
        ended = run_to_end(saga)
        assert (ended.status, ended.failure) == ("rolled_back", "full")
        assert trip.calls == ["unfly"]

    def test_a_decided_failure_of_unknown_outcome_is_undone_too(self, trip: type[Trip]) -> None:
        saga = begin("trip")
        dead = claimed_by("dead")
        entries.done(dead, "fly", "F", attempt=1, result={})
        entries.failed(dead, "stay", "F", attempt=3, error="lost", unknown=True, decides=True)
        assert run_to_end(saga).status == "rolled_back"
        assert trip.calls == ["unstay", "unfly"]

    def test_compensations_that_are_done_are_not_run_again(self, trip: type[Trip]) -> None:
        saga = begin("trip")
        dead = claimed_by("dead")
        for step in ("fly", "stay"):
            entries.done(dead, step, "F", attempt=1, result={})
        entries.failed(dead, "eat", "F", attempt=1, error="no table", decides=True)
        entries.done(dead, "stay", "C", attempt=1, result={"fee": Decimal(5)})
        fees: list[Any] = []
        trip.script["unfly"] = lambda ctx: fees.append(ctx.get("fee"))
        assert run_to_end(saga).status == "rolled_back"
        assert trip.calls == ["unfly"]
        assert fees == [Decimal(5)]

    def test_everything_done_but_the_end(self, trip: type[Trip], on_finish: SetHook) -> None:
        outcomes: list[SagaOutcome] = []
        on_finish("trip", outcomes.append)
        saga = begin("trip")
        dead = claimed_by("dead")
        for step in ("fly", "stay", "eat"):
            entries.done(dead, step, "F", attempt=1, result={step: True})
        assert run_to_end(saga).status == "completed"
        assert trip.calls == []
        assert outcomes[0].context["eat"] is True

    @pytest.mark.usefixtures("trip")
    def test_at_start_all_leases_can_be_taken_away(self) -> None:
        begin("trip")
        claimed_by("dead", lease=60)
        later = begin("trip", key="K-2")
        in_an_hour = timezone.now() + timedelta(hours=1)
        Saga.objects.filter(id=later).update(next_run_at=in_an_hour, status="waiting")
        assert claims.release_all() == 1
        assert claimed_by("next").epoch == 2


class TestAStaleWorker:
    """Its lease ran out and another has claimed the saga: it changes nothing."""

    @pytest.fixture
    def stale(self, trip: type[Trip]) -> Claimed:  # noqa: ARG002 - must be there first
        begin("trip")
        stale = claimed_by("stale")
        claimed_by("next", lease=60)
        return stale

    def test_no_local_step(self, stale: Claimed) -> None:
        with pytest.raises(LeaseLost):
            entries.do_locally(stale, "fly", work=lambda: write("flight"))
        assert written() == set()
        assert journal_of(stale.id) == {}

    def test_no_journal_row(self, stale: Claimed) -> None:
        with pytest.raises(LeaseLost):
            entries.started(stale, "stay", "F", attempt=1)
        with pytest.raises(LeaseLost):
            entries.done(stale, "stay", "F", attempt=1, result={})
        assert journal_of(stale.id) == {}

    def test_no_decision(self, stale: Claimed) -> None:
        with pytest.raises(LeaseLost):
            entries.failed(stale, "stay", "F", attempt=1, error="no", decides=True)
        saga = Saga.objects.get(id=stale.id)
        assert (saga.status, saga.failure) == ("running", "")

    def test_no_end(self, stale: Claimed, on_finish: SetHook) -> None:
        outcomes: list[SagaOutcome] = []
        on_finish("trip", outcomes.append)
        with pytest.raises(LeaseLost):
            entries.finish(stale, Ending.COMPLETED)
        assert Saga.objects.get(id=stale.id).status == "running"
        assert outcomes == []

    def test_no_lease(self, stale: Claimed) -> None:
        before = Saga.objects.get(id=stale.id).next_run_at
        claims.renew(worker="stale", ids=[stale.id], lease=timedelta(hours=1))
        claims.release(worker="stale")
        assert Saga.objects.get(id=stale.id).next_run_at == before

    @pytest.mark.usefixtures("one_by_one")
    def test_in_the_middle_of_a_call(self, trip: type[Trip]) -> None:
        saga = begin("trip")

        def take_over() -> None:
            Saga.objects.filter(id=saga).update(
                epoch=99, worker="next", next_run_at=timezone.now() + timedelta(hours=1)
            )

        async def stay(_: Context) -> None:
            await call_in_thread(take_over)

        trip.script["stay"] = stay
        with working() as worker:
            until(lambda: "stay" in trip.calls)
            until(lambda: not worker._running)
        row = Saga.objects.get(id=saga)
        assert (row.status, row.epoch, row.worker) == ("running", 99, "next")
        assert journal_of(saga)["stay:F"] == ("started", 1)
        assert trip.calls == ["fly", "stay"]


class TestStopping:
    def test_what_runs_is_finished(self, slow: type[Slow]) -> None:
        saga = begin("slow")
        workers: list[Executor] = []
        slow.wait_for = lambda: all(run_._state.hurry.is_set() for run_ in runs_of(workers[0]))
        with working() as worker:
            workers.append(worker)
            until(lambda: slow.calls)
        assert Saga.objects.get(id=saga).status == "completed"

    def test_between_two_attempts_it_is_handed_over_at_once(self, trip: type[Trip]) -> None:
        timing = replace(QUICK, retry=Backoff(first=HOUR, longest=30.0), longest_rest=HOUR)
        trip.script["stay"] = raising(ConnectionError("away"))
        saga = begin("trip")
        with working(timing=timing, grace=HOUR):
            until(lambda: journal_of(saga).get("stay:F") == ("unknown", 1))
        row = Saga.objects.get(id=saga)
        assert (row.status, row.worker) == ("running", "")
        assert row.next_run_at <= timezone.now()

    def test_after_the_grace_it_is_handed_over_behind_the_step_that_runs(
        self, slow: type[Slow]
    ) -> None:
        saga = begin("slow")
        workers: list[Executor] = []
        slow.wait_for = lambda: all(run_._state.suspended for run_ in runs_of(workers[0]))
        with working(grace=0.3) as worker:
            workers.append(worker)
            until(lambda: slow.calls)
        row = Saga.objects.get(id=saga)
        assert (row.status, row.worker) == ("running", "")
        assert journal_of(saga) == {"first:F": ("done", 1)}
        assert run_to_end(saga).status == "completed"
        assert slow.calls == ["first", "second"]

    @pytest.mark.usefixtures("trip")
    def test_during_an_outage_nothing_is_decided(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The database comes back just when the worker has given up waiting for it."""
        workers: list[Executor] = []
        reached = threading.Event()
        real = statements.upsert_steps

        def write_journal(given: Any) -> sql.Statement:
            if not workers or not all(run_._state.suspended for run_ in runs_of(workers[0])):
                reached.set()
                raise OperationalError("server closed the connection unexpectedly")
            return real(given)

        saga = begin("trip")
        with monkeypatch.context() as away:
            away.setattr(statements, "upsert_steps", write_journal)
            with working() as worker:
                workers.append(worker)
                assert reached.wait(TIMEOUT)
        row = Saga.objects.get(id=saga)
        assert (row.status, row.failure) == ("running", "")
        assert journal_of(saga) == {}
        assert run_to_end(saga).status == "completed"

    def test_a_lost_lease_ends_the_waiting_of_the_steps_beside(self, pair: type[Pair]) -> None:
        saga = begin("pair")

        async def left() -> None:
            await call_in_thread(until, lambda: journal_of(saga).get("right:F") == ("failed", 1))
            in_an_hour = timezone.now() + timedelta(hours=1)
            await call_in_thread(
                lambda: Saga.objects.filter(id=saga).update(epoch=99, next_run_at=in_an_hour)
            )

        def right() -> None:
            raise ConnectionError("away")

        pair.script |= {"left": left, "right": right}
        timing = replace(QUICK, retry=Backoff(first=HOUR, longest=30.0))
        with working(timing=timing) as worker:
            until(lambda: Saga.objects.get(id=saga).epoch == 99)
            until(lambda: not worker._running)
        assert sorted(pair.calls) == ["left", "right"]


class TestWhatCannotBeRun:
    @pytest.mark.usefixtures("trip")
    def test_an_unknown_name_parks(self, on_park: SetHook) -> None:
        outcomes: list[SagaOutcome] = []
        on_park("gone", outcomes.append)
        saga = begin("trip")
        Saga.objects.filter(id=saga).update(name="gone")
        ended = run_to_end(saga)
        assert ended.status == "parked"
        assert "gone with version 1" in ended.park_reason
        assert len(outcomes) == 1

    def test_an_unknown_version_parks(self, trip: type[Trip]) -> None:
        saga = begin("trip")
        Saga.objects.filter(id=saga).update(version=7)
        ended = run_to_end(saga)
        assert ended.status == "parked"
        assert "version 7" in ended.park_reason
        assert trip.calls == []

    def test_other_steps_than_those_it_began_with_park(self, trip: type[Trip]) -> None:
        saga = begin("trip")
        entries.done(claimed_by("dead"), "fly", "F", attempt=1, result={})
        Saga.objects.filter(id=saga).update(definition_hash="of another day")
        ended = run_to_end(saga)
        assert ended.status == "parked"
        assert "new version" in ended.park_reason
        assert trip.calls == []

    @pytest.mark.usefixtures("trip")
    def test_one_that_has_not_begun_takes_the_new_steps(self) -> None:
        saga = begin("trip")
        Saga.objects.filter(id=saga).update(definition_hash="of another day")
        assert run_to_end(saga).status == "completed"


class TestTheEnd:
    def test_the_hook_is_told_how_it_ended(self, trip: type[Trip], on_finish: SetHook) -> None:
        outcomes: list[SagaOutcome] = []
        on_finish("trip", outcomes.append)
        trip.script["fly"] = lambda _: {"seat": "1A"}
        saga = run_to_end(begin("trip", who="Zoë"))
        (outcome,) = outcomes
        assert (outcome.saga_id, outcome.name, outcome.key) == (saga.id, "trip", "K-1")
        assert (outcome.ending, outcome.reason) == (Ending.COMPLETED, "")
        assert outcome.context["who"] == "Zoë"
        assert outcome.context["seat"] == "1A"
        assert not any(key.startswith("__") for key in outcome.context)

    def test_of_one_that_was_undone_too(self, trip: type[Trip], on_finish: SetHook) -> None:
        outcomes: list[SagaOutcome] = []
        on_finish("trip", outcomes.append)
        trip.script["fly"] = lambda _: {"seat": "1A"}
        trip.script["eat"] = raising(StepRejected("no table"))
        run_to_end(begin("trip"))
        (outcome,) = outcomes
        assert (outcome.ending, outcome.reason) == (Ending.ROLLED_BACK, "no table")
        assert outcome.context["seat"] == "1A"

    @pytest.mark.usefixtures("one_by_one")
    def test_hook_and_end_commit_together(self, trip: type[Trip], on_finish: SetHook) -> None:
        calls: list[str] = []

        def hook(outcome: SagaOutcome) -> None:
            calls.append(Saga.objects.get(id=outcome.saga_id).status)
            write("souvenir")
            if len(calls) == 1:
                before.append(journal_of(outcome.saga_id))
                raise RuntimeError("the hook broke")

        before: list[Any] = []
        on_finish("trip", hook)
        saga = begin("trip")
        with working(lease=1.5):
            until(lambda: calls)
            until(lambda: Saga.objects.get(id=saga).status == "completed")
        # Once it raised: no souvenir, no end. Taken up again, it ended once.
        assert calls == ["completed", "completed"]
        assert "souvenir" in written()
        assert trip.calls == ["fly", "stay", "eat"]

    @pytest.mark.usefixtures("one_by_one")
    def test_a_hook_that_keeps_raising_parks_and_a_retry_ends_it(
        self,
        trip: type[Trip],
        on_finish: SetHook,
        on_park: SetHook,
    ) -> None:
        is_mended: list[int] = []
        parked: list[str] = []

        def hook(_: SagaOutcome) -> None:
            write("souvenir")
            if not is_mended:
                raise OperationalError("the hook broke") from _canceled()

        on_finish("trip", hook)
        on_park("trip", lambda outcome: parked.append(outcome.reason))
        saga = run_to_end(begin("trip"), timing=replace(QUICK, hook_excuse=0.0))
        assert saga.status == "parked"
        assert saga.park_reason == "its on_finish hook fails: OperationalError: the hook broke"
        assert parked == [saga.park_reason]
        assert saga.finished_at is None
        assert "souvenir" not in written()

        is_mended.append(1)
        retry(saga.id, by=By("a test", "it is mended"))
        assert run_to_end(saga.id).status == "completed"
        assert "souvenir" in written()
        assert trip.calls == ["fly", "stay", "eat"]

    @pytest.mark.usefixtures("trip")
    def test_one_that_cannot_be_parked_as_its_app_wants_is_parked_all_the_same(
        self, on_finish: SetHook, on_park: SetHook
    ) -> None:
        def park(_: SagaOutcome) -> None:
            write("note")
            raise RuntimeError("this hook too")

        on_finish("trip", lambda _: 1 / 0)  # type: ignore[arg-type]
        on_park("trip", park)
        saga = run_to_end(begin("trip"))
        assert saga.status == "parked"
        assert "ZeroDivisionError" in saga.park_reason
        assert "note" not in written()

    @pytest.mark.usefixtures("trip")
    @pytest.mark.usefixtures("one_by_one")
    def test_a_commit_whose_answer_was_lost_calls_no_hook_twice(
        self, on_finish: SetHook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        outcomes: list[SagaOutcome] = []
        on_finish("trip", outcomes.append)
        real = final_transaction.finish
        answers: list[int] = []

        def finish(*args: Any, **options: Any) -> None:
            real(*args, **options)
            answers.append(1)
            if len(answers) == 1:
                raise OperationalError("server closed the connection unexpectedly")

        monkeypatch.setattr(final_transaction, "finish", finish)
        saga = begin("trip")
        with working():
            until(lambda: len(answers) == 2)
        assert Saga.objects.get(id=saga).status == "completed"
        assert len(outcomes) == 1


def test_a_database_away_at_the_claim(trip: type[Trip], monkeypatch: pytest.MonkeyPatch) -> None:
    real = claims.claim
    failures = iter(range(3))

    def claim(**kwargs: Any) -> list[Claimed]:
        if next(failures, None) is not None:
            raise OperationalError("server closed the connection unexpectedly")
        return real(**kwargs)

    monkeypatch.setattr(claims, "claim", claim)
    assert run_to_end(begin("trip")).status == "completed"


def test_room_beside_sagas_that_take_long_is_not_left_empty(
    register: Register, script: Script
) -> None:
    """Claims wait for room for many at a time, but not for ever."""
    register(script.saga("tour", Part("fly", external=True)))
    released = threading.Event()

    async def fly(ctx: Context) -> None:
        if ctx["slow"]:
            await asyncio.to_thread(released.wait, 20)

    script.acts["fly"] = fly
    for n in range(7):
        begin("tour", key=f"SLOW-{n}", slow=True)
    quick = [begin("tour", key=f"QUICK-{n}", slow=False) for n in range(5)]
    with working(concurrency=8):
        try:
            until(lambda: Saga.objects.filter(id__in=quick, status="completed").count() == 5)
        finally:
            released.set()


@pytest.mark.on_postgresql
def test_sagas_are_claimed_while_every_thread_is_in_a_local_step(
    register: Register, script: Script
) -> None:
    register(script.saga("tour", Part("fly")), script.saga("mail", Part("post", external=True)))
    released = threading.Event()
    script.acts["fly"] = lambda _: released.wait(TIMEOUT)
    for n in range(6):
        begin("tour", key=f"K-{n}")
    with working(concurrency=8):
        try:
            until(lambda: len(script.calls) == 4)
            mail = begin("mail")
            until(lambda: Saga.objects.filter(id=mail, status="completed").exists())
        finally:
            released.set()


def test_waking_a_worker_that_does_not_run_is_harmless() -> None:
    with working() as worker:
        worker.wake()
    worker.wake()
