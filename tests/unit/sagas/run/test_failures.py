"""However foreign code fails: it is described once, safely and within bounds, and nothing follows
by accident. What each class of exception leads to is in `test_saga_failures_table`."""

import asyncio
import builtins
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from traceback import format_exception
from typing import Any, NoReturn

import pytest
from django.core.management import call_command
from django.db import transaction
from sagaz import Saga as SagaClass
from sagaz import action, compensate

import orders.sagas
from orders.errors import PaymentDeclined, PaymentUnavailable
from orders.messages import SAGA_NAME
from orders.models import Order, Payment, Product
from orders.sample_stock import load_sample_stock
from orders.services import Item, place_order
from outbox.models import OutboxMessage
from saga_runtime.allowance import Allowance
from saga_runtime.backoff import Backoff
from saga_runtime.database_threads import Threads
from saga_runtime.text import LONGEST_ERROR, bounded
from sagas import NeedsAttention, StepRejected
from sagas.definition.hooks import SagaOutcome
from sagas.definition.instances import InstanceFactory
from sagas.failures import LONGEST_TRACEBACK, failure_of, raisable, stand_in, traceback_of
from sagas.journal import group_commit
from sagas.models import ACTIVE, Saga, SagaAttempt, SagaStep
from sagas.run.engine import DrivenSaga
from sagas.run.own_task import call_apart
from tests.unit.sagas.saga_running import (
    QUICK,
    Context,
    Register,
    attempts_of,
    begin,
    run_to_end,
    working,
)
from tests.unit.sagas.scripted_sagas import Part, Script, chain, raising
from tests.unit.waiting import until

ODD = "a\0b\ud800 \x1b[31m" + "x" * 3_000_000
KEPT = 20_000  # characters of one log line at most: an error's text, and a traceback


class UnprintableError(Exception):
    def __str__(self) -> NoReturn:
        raise RuntimeError("no text")

    __repr__ = __str__


class NotedError(Exception):
    @property
    def __notes__(self) -> NoReturn:  # type: ignore[override]
        raise SystemExit(3)


class NamelessType(type):
    @property
    def __name__(cls) -> NoReturn:  # type: ignore[override]
        raise SystemExit(3)


class NamelessError(Exception, metaclass=NamelessType):
    pass


def raised(error: BaseException) -> BaseException:
    """The error with a traceback."""
    try:
        raising(error)({})
    except BaseException as caught:  # noqa: BLE001 - it is handed out
        return caught
    return error


def deep_group() -> BaseException:
    error: Exception = StepRejected("deep")
    for _ in range(3000):
        error = ExceptionGroup("g", [error])
    return error


STRANGE: dict[str, Callable[[], BaseException]] = {
    "unprintable": UnprintableError,
    "with notes that raise": NotedError,
    "of a type without a name": NamelessError,
    "a deep group": deep_group,
    "long": lambda: ValueError(ODD),
    "a group of unprintable ones": lambda: ExceptionGroup("g", [UnprintableError()] * 3),
}


class TestDescribing:
    @pytest.mark.parametrize("make", STRANGE.values(), ids=[*STRANGE])
    def test_cannot_fail(self, make: Callable[[], BaseException]) -> None:
        error = raised(make())
        failure = failure_of(error)
        assert failure.text
        assert failure.text == bounded(failure.text)
        assert len(failure.text) <= LONGEST_ERROR
        for kept in (failure.traceback, traceback_of(error), *format_exception(stand_in(error))):
            assert len(kept) <= LONGEST_TRACEBACK
            assert not {"\0", "\x1b", "\ud800"} & set(kept)
        assert isinstance(raisable(error), Exception)

    def test_of_megabytes_holds_nobody_up(self) -> None:
        """It happens on the event loop. (To make three of them visible took two seconds.)"""
        error = raised(ValueError("\x1b" * 3_000_000))
        began = time.process_time()
        for _ in range(10):
            failure_of(error)
            traceback_of(error)
        assert time.process_time() - began < 10

    def test_a_refusal_is_told_in_its_own_words(self) -> None:
        assert failure_of(StepRejected("full")).text == "full"
        assert failure_of(StepRejected()).text == "StepRejected"

    def test_refusals_of_a_group_each_once(self) -> None:
        group_ = ExceptionGroup(
            "unhandled errors in a TaskGroup",
            [
                StepRejected("full"),
                ExceptionGroup("g", [StepRejected("late")]),
                StepRejected("full"),
            ],
        )
        failure = failure_of(group_)
        assert (failure.text, failure.is_no, failure.is_group) == ("full; late", True, True)
        assert failure.traceback == ""

    def test_a_question_for_a_person_out_of_a_group_comes_first(self) -> None:
        failure = failure_of(ExceptionGroup("g", [StepRejected("full"), NeedsAttention("odd")]))
        assert (failure.text, failure.needs_attention, failure.is_no) == ("odd", True, False)

    def test_what_is_beside_a_refusal_is_in_the_traceback(self) -> None:
        failure = failure_of(ExceptionGroup("g", [StepRejected("full"), ValueError("odd")]))
        assert (failure.text, failure.is_no) == ("full", True)
        assert "ValueError: odd" in failure.traceback

    def test_a_traceback_names_what_was_called_and_the_cause(self) -> None:
        def broken() -> None:
            try:
                dict[str, str]()["first"]
            except KeyError as error:
                raise ValueError("second") from error

        try:
            broken()
        except ValueError as error:
            text = failure_of(error).traceback
        for part in ("in broken", "KeyError: 'first'", "ValueError: second"):
            assert part in text


BUILTINS = [
    each
    for each in vars(builtins).values()
    if isinstance(each, type)
    and issubclass(each, BaseException)
    and not issubclass(each, BaseExceptionGroup | UnicodeError)
]


class TestApart:
    """What is awaited in a task of its own."""

    def ends(self, function: Callable[[], Any], *, timeout: float | None = None) -> Any:
        async def run() -> Any:
            task = asyncio.current_task()
            try:
                result: Any = await call_apart(function, allowance=Allowance(timeout))
            except Exception as error:  # noqa: BLE001 - looked at
                result = error
            await asyncio.sleep(0.01)  # what a timer would still do
            assert task is not None
            assert task.cancelling() == 0
            return result

        return asyncio.run(run())

    @pytest.mark.parametrize("kind", BUILTINS, ids=lambda kind: kind.__name__)
    @pytest.mark.parametrize("late", [False, True])
    def test_every_class_is_an_exception_at_last(
        self, kind: type[BaseException], *, late: bool
    ) -> None:
        async def step() -> None:
            if late:
                await asyncio.sleep(0)
            raise kind("odd")

        ended = self.ends(step)
        assert isinstance(ended, Exception)
        # A coroutine cannot raise StopIteration, Python makes something else of it.
        assert kind is StopIteration or kind.__name__ in f"{type(ended).__name__} {ended}"

    def test_a_timer_that_cancels_its_task_and_is_caught(self) -> None:
        """async-timeout 4: it cancels the current task, and raises TimeoutError in its place."""

        async def step() -> None:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_later(0.001, task.cancel)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise TimeoutError("the provider is slow") from None

        assert str(self.ends(step)) == "the provider is slow"

    def test_a_timer_that_comes_late(self) -> None:
        async def step() -> str:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_later(0.001, task.cancel)
            return "paid"

        assert self.ends(step) == "paid"

    def test_a_timeout(self) -> None:
        async def step() -> None:
            await asyncio.sleep(60)

        assert type(self.ends(step, timeout=0.01)) is TimeoutError

    def test_a_timeout_before_it_has_begun(self) -> None:
        begun = []

        async def step() -> None:
            begun.append(1)
            await asyncio.sleep(60)

        assert type(self.ends(step, timeout=-1)) is TimeoutError

    def test_a_step_that_answers_its_timeout(self) -> None:
        async def step() -> str:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return "paid just now"
            return ""

        assert self.ends(step, timeout=0.01) == "paid just now"

    def test_the_end_of_the_loop_ends_the_step(self) -> None:
        ended: list[str] = []

        async def step() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                ended.append("step")
                raise

        async def run() -> None:
            task = asyncio.create_task(call_apart(step))
            await asyncio.sleep(0.01)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                ended.append("caller")

        asyncio.run(run())
        assert sorted(ended) == ["caller", "step"]


@pytest.fixture
def tour(register: Register, script: Script) -> None:
    register(script.saga("tour", *chain(Part("fly"), Part("stay", external=True), Part("eat"))))


def broken() -> NoReturn:
    raise ValueError(ODD)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("tour")
class TestTexts:
    def test_are_bounded_everywhere(
        self, script: Script, on_park: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        heard: list[SagaOutcome] = []
        on_park("tour", heard.append)
        script.acts |= {"eat": raising(StepRejected(ODD)), "unstay": raising(ValueError(ODD))}
        with caplog.at_level(logging.DEBUG):
            saga = run_to_end(begin("tour"))
        assert saga.status == "parked"
        rows: list[Any] = [*SagaStep.objects.all(), *SagaAttempt.objects.all()]
        texts = [saga.failure, saga.park_reason, heard[0].reason, *(row.error for row in rows)]
        assert max(map(len, texts)) <= LONGEST_ERROR
        assert heard[0].reason == saga.park_reason
        assert saga.failure == bounded(ODD)
        assert saga.failure in set(SagaStep.objects.values_list("error", flat=True))
        assert len(caplog.text) <= KEPT * len(caplog.records)
        assert "\x1b" not in caplog.text

    def test_the_traceback_of_the_last_attempt_is_logged_and_kept(
        self, script: Script, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
    ) -> None:
        script.acts["stay"] = lambda _: broken()
        saga = run_to_end(begin("tour"))
        kept = [attempt.traceback for attempt in attempts_of(saga.id, of="stay:F")]
        assert [bool(text) for text in kept] == [False, False, True]
        assert "in broken" in kept[-1]
        assert len(kept[-1]) <= LONGEST_TRACEBACK
        assert caplog.text.count("in broken") == 1
        call_command("sagas", "show", str(saga.id))
        shown = capsys.readouterr().out
        assert "in broken" in shown
        assert "traceback of stay forward 3" in shown
        assert "\x1b" not in shown.partition("traceback of")[2]

    def test_a_refusal_has_none(self, script: Script, caplog: pytest.LogCaptureFixture) -> None:
        script.acts["stay"] = raising(StepRejected("full"))
        saga = run_to_end(begin("tour"))
        assert {attempt.traceback for attempt in attempts_of(saga.id)} == {""}
        assert "Traceback" not in caplog.text


@pytest.mark.django_db(transaction=True)
class TestHooks:
    def test_that_fail_while_a_saga_fails_change_nothing(self, register: Register) -> None:
        error = ConnectionError("away")
        heard: list[object] = []

        def hear(*arguments: object) -> NoReturn:
            heard.append(arguments[-1])
            raise SystemExit(3)

        class Letter(SagaClass):
            saga_name = "letter"

            @action("write", on_enter=hear)
            async def write(self, ctx: Context) -> None: ...

            @compensate("write", on_compensate=hear)
            async def tear(self, ctx: Context) -> None: ...

            @action("send", depends_on=["write"], max_retries=0, on_failure=hear)
            async def send(self, _: Context) -> None:
                raise error

        register(Letter)
        saga = run_to_end(begin("letter"))
        assert (saga.status, saga.failure) == ("rolled_back", "ConnectionError: away")
        assert heard == ["write", error, "write"]

    @pytest.mark.usefixtures("tour")
    @pytest.mark.usefixtures("one_by_one")
    def test_an_on_commit_function_of_one_has_the_saga_ended_all_the_same(
        self, on_finish: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        def leave() -> NoReturn:
            raise SystemExit("odd")

        on_finish("tour", lambda _: transaction.on_commit(leave))
        assert run_to_end(begin("tour")).status == "completed"
        assert run_to_end(begin("tour", key="K-2")).status == "completed"
        assert "an on_commit function of its hook failed" in caplog.text

    def test_an_on_commit_function_of_a_step_too(
        self, register: Register, caplog: pytest.LogCaptureFixture
    ) -> None:
        def leave() -> NoReturn:
            raise KeyboardInterrupt

        script = Script()
        script.acts["fly"] = lambda _: transaction.on_commit(leave)
        register(script.saga("tour", Part("fly")))
        assert run_to_end(begin("tour")).status == "completed"
        assert script.calls == ["fly"]
        assert "an on_commit function of it failed" in caplog.text


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("tour")
def test_a_class_of_which_no_instance_can_be_made_parks_its_saga_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saga = begin("tour")
    with monkeypatch.context() as patch:
        patch.setattr(InstanceFactory, "new", lambda _: raising(SystemExit(3))({}))
        parked = run_to_end(saga)
    assert parked.status == "parked"
    assert parked.park_reason == "its saga cannot be made: SystemExit: 3"
    assert run_to_end(begin("tour", key="K-2")).status == "completed"


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("tour")
def test_a_failure_in_failure_handling_leaves_the_saga_as_it_is(
    script: Script, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is taken over, and goes on from where it was: nothing is undone, nothing left out."""
    from sagas.run.decisions import Decisions

    real = Decisions.handle_failure
    failures = [SystemExit(3)]

    async def failing(*args: Any) -> None:
        if failures:
            raise failures.pop()
        await real(*args)

    script.acts["stay"] = raising(ConnectionError("away"))
    monkeypatch.setattr(Decisions, "handle_failure", failing)
    saga = run_to_end(begin("tour"), lease=1.5)
    assert (saga.status, saga.failure) == ("rolled_back", "ConnectionError: away")
    assert script.calls == ["fly", "stay", "stay", "stay", "stay", "unstay", "unfly"]
    assert "to be taken up again" in caplog.text


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("tour")
def test_what_ends_a_run_ends_no_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = DrivenSaga.run_steps
    failures: list[BaseException] = [SystemExit(3), KeyboardInterrupt(), GeneratorExit()]

    async def run(self: DrivenSaga) -> Any:
        if failures:
            raise failures.pop()
        return await real(self)

    monkeypatch.setattr(DrivenSaga, "run_steps", run)
    sagas = [begin("tour", key=f"K-{n}") for n in range(4)]
    with working(lease=1.5):
        until(lambda: not Saga.objects.filter(status__in=ACTIVE).exists())
    assert {saga.status for saga in Saga.objects.filter(id__in=sagas)} == {"completed"}
    assert caplog.text.count("an error outside its steps") == 3


def test_what_is_no_exception_in_the_journals_thread_reaches_each_writer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody waits for ever."""

    async def run() -> list[object]:
        threads = Threads(1, name="group")

        async def leave(*_: object) -> NoReturn:
            raise GeneratorExit

        monkeypatch.setattr(threads, "run", leave)
        commits = group_commit.GroupCommit(threads)
        entry: Any = object()
        written = [commits.put(entry) for _ in range(3)]
        results: list[object] = await asyncio.gather(*written, return_exceptions=True)
        threads.close()
        return results

    assert [str(each) for each in asyncio.run(run())] == ["it raised GeneratorExit"] * 3


class Gateway:
    """Says what it is told to."""

    def __init__(self, *, charge: str = "", refund: str = "") -> None:
        self.answers = {"charge": charge, "refund": refund}

    def charge(self, **_: object) -> str:
        if self.answers["charge"]:
            raise PaymentDeclined(self.answers["charge"])
        return "T-1"

    def refund(self, **_: object) -> None:
        if self.answers["refund"]:
            raise PaymentUnavailable(self.answers["refund"])


@pytest.fixture
def pay(monkeypatch: pytest.MonkeyPatch) -> Callable[[Gateway], None]:
    """Makes this the gateway of the order saga."""

    def use(gateway: Gateway) -> None:
        monkeypatch.setattr(orders.sagas, "gateway", lambda: gateway)

    return use


def place(order_id: str) -> Saga:
    """Place an order, and run its saga to its end."""
    load_sample_stock()
    product = Product.objects.order_by("product_id").values_list("product_id", flat=True)[0]
    item = Item(product, "A book", 1)
    placed = place_order(order_id=order_id, user_id="U", items=[item], amount=Decimal("9.99"))
    OutboxMessage.objects.all().delete()
    saga = begin(SAGA_NAME, key=order_id, order_id=order_id, amount=placed.order.amount)
    return run_to_end(saga, timing=replace(QUICK, retry=Backoff(first=0.0, longest=0.0)))


@pytest.mark.django_db(transaction=True)
class TestOrders:
    """What a provider says reaches the order as the journal has it."""

    def test_a_decline(self, pay: Callable[[Gateway], None]) -> None:
        pay(Gateway(charge=ODD))
        saga = place("F-1")
        order = Order.objects.get(order_id="F-1")
        assert (saga.status, order.status) == ("rolled_back", "rejected")
        assert order.reason == saga.failure == bounded(ODD)
        (event,) = OutboxMessage.objects.all()
        assert len(event.payload) < 3 * LONGEST_ERROR

    def test_a_refund_that_fails(
        self, pay: Callable[[Gateway], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pay(Gateway(refund=ODD))
        monkeypatch.setattr(
            "orders.fulfilment.ship", lambda **_: raising(StepRejected("no van"))({})
        )
        saga = place("F-2")
        order = Order.objects.get(order_id="F-2")
        assert (saga.status, order.status) == ("parked", "attention")
        assert order.reason == saga.park_reason
        assert saga.park_reason.startswith("undoing charge_payment keeps failing: ")
        assert Payment.objects.get().status != "refunded"
