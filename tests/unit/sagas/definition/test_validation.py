"""What a saga class may not be: refused at start-up, in a sentence that says what to write."""

import asyncio
import functools
from abc import abstractmethod
from collections.abc import Callable
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
from sagaz import OutboxSagaListener, Saga, SagaConfig, SagaListener, action, compensate
from sagaz.core.decorators import forward_recovery
from sagaz.core.execution.graph import CompensationType
from sagaz.core.hooks import publish_on_success
from sagaz.core.triggers import trigger

from sagas.definition import discovery
from sagas.definition.registry import Registry
from sagas.errors import SagaDefinitionError
from tests.unit.sagas.saga_running import Context


class Pay(Saga):
    saga_name = "pay"

    @trigger(source="pay.now", idempotency_key="n")
    def on_pay(self, event: Context) -> Context:
        return event

    @action("charge")
    async def charge(self, ctx: Context) -> None: ...

    @compensate("charge")
    async def refund(self, ctx: Context) -> None: ...


def refusal(saga_class: type[Saga]) -> str:
    with pytest.raises(SagaDefinitionError) as refused:
        discovery.describe(saga_class)
    return str(refused.value)


def made(base: type[Saga] = Saga, **members: Any) -> type[Saga]:
    """A class of these members, named Made."""
    return type("Made", (base,), members)


def found(saga_registry: Registry, *classes: type[Saga]) -> list[str]:
    """The names of what start-up makes of these classes."""
    discovery.replace_all(classes)
    return saga_registry.types.names()


class TestAMethodWithoutItsDecorator:
    @pytest.mark.parametrize(
        ("name", "decorator"),
        [
            ("charge", '@action("charge")'),
            ("refund", '@compensate("charge")'),
            ("on_pay", '@trigger(source="pay.now", …)'),
        ],
    )
    def test_in_a_subclass(self, name: str, decorator: str) -> None:
        async def override(self: Saga, ctx: Context) -> None: ...

        text = refusal(made(Pay, saga_name="pay2", **{name: override}))
        assert f"Made.{name} overrides Pay.{name}" in text
        assert f"Write {decorator} above Made.{name} too" in text

    def test_in_a_mixin(self) -> None:
        class Loud:
            async def refund(self, ctx: Context) -> None: ...

        class Mixed(Loud, Pay):
            saga_name = "mixed"

        text = refusal(Mixed)
        assert "Loud.refund overrides Pay.refund" in text

    @pytest.mark.parametrize("value", [None, 7, property(len)])
    def test_in_the_place_of_which_there_is_no_method(self, value: Any) -> None:
        text = refusal(made(Pay, saga_name="none", refund=value))
        assert "Made.refund overrides Pay.refund" in text
        assert "derive from a class without it" in text

    def test_in_a_subclass_of_a_subclass(self) -> None:
        class Middle(Pay):
            saga_name = "middle"

            async def refund(self, ctx: Context) -> None: ...

        text = refusal(made(Middle, saga_name="last"))
        assert "Middle.refund overrides Pay.refund" in text

    def test_behind_an_attribute_of_the_instance(self) -> None:
        def initialise(self: Any) -> None:
            self.refund = None
            Pay.__init__(self)

        cls = made(Pay, saga_name="own", __init__=initialise)
        assert "sets self.refund" in refusal(cls)

    def test_behind_another_decorator(self) -> None:
        def logged(function: Callable[..., Any]) -> Callable[..., Any]:
            async def call(*args: Any) -> Any:
                return await function(*args)

            return call

        class Logged(Pay):
            saga_name = "logged"

            @action("more", depends_on=["charge"])
            async def more(self, ctx: Context) -> None: ...

            @logged
            @compensate("more")
            async def less(self, ctx: Context) -> None: ...

        text = refusal(Logged)
        assert 'Logged.less: another decorator hides @compensate("more")' in text

    def test_within_a_partial(self) -> None:
        text = refusal(made(Pay, saga_name="p", again=functools.partial(Pay.refund)))
        assert "another decorator hides" in text

    def test_with_a_decorator_that_was_not_called(self) -> None:
        class Bare(Pay):
            saga_name = "bare"

            more = action(Pay.refund)  # type: ignore[arg-type]

        assert "Bare.more: a decorator of sagaz wants a name" in refusal(Bare)

    def test_is_fine_where_it_has_one(self, saga_registry: Registry) -> None:
        def kept(function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            async def call(*args: Any) -> Any:
                return await function(*args)

            return call

        def other_kind(self: Any, ctx: Context) -> None:
            asyncio.run(Pay.charge(self, ctx))

        async def again(self: Saga, ctx: Context) -> None: ...

        other = made(
            Pay,
            saga_name="other",
            charge=action("charge")(other_kind),
            refund=kept(compensate("charge")(again)),
        )
        assert found(saga_registry, other) == ["other"]


class TestABase:
    def test_without_steps_is_passed_over(self, saga_registry: Registry) -> None:
        class Common(Saga):
            def helper(self) -> None: ...

        class Real(Common):
            @action("one")
            def one(self, ctx: Context) -> None: ...

        assert found(saga_registry, Common, Real) == ["Real"]

    def test_with_steps_that_says_so_is_passed_over(self, saga_registry: Registry) -> None:
        class Common(Saga):
            abstract = True

            @action("one")
            def one(self, ctx: Context) -> None: ...

        class Real(Common):
            @action("two", depends_on=["one"])
            def two(self, ctx: Context) -> None: ...

        assert found(saga_registry, Common, Real) == ["Real"]

    def test_with_abstract_methods_is_passed_over(self, saga_registry: Registry) -> None:
        from abc import ABC

        class Common(Saga, ABC):
            @action("one")
            def one(self, ctx: Context) -> None: ...

            @abstractmethod
            def amount(self) -> int: ...

        class Real(Common):
            def amount(self) -> int:
                return 1

        assert found(saga_registry, Common, Real) == ["Real"]

    def test_that_may_be_a_saga_too_has_to_say_so(self, saga_registry: Registry) -> None:
        class Common(Saga):
            @action("one")
            def one(self, ctx: Context) -> None: ...

        class Real(Common):
            saga_name = "real"

        with pytest.raises(SagaDefinitionError, match="say `abstract = True` in it where"):
            found(saga_registry, Common, Real)

    def test_may_be_a_saga_too(self, saga_registry: Registry) -> None:
        class Newer(Pay):
            version = 2

            @trigger(source="pay.later", idempotency_key="n")
            def on_later(self, event: Context) -> Context:
                return event

        assert found(saga_registry, Pay, Newer) == ["pay"]
        assert saga_registry.types.get("pay", 1) is not None
        assert saga_registry.types.get("pay", 2) is not None


class TestWhatCannotBeMade:
    def test_for_want_of_an_argument(self) -> None:
        def initialise(self: Any, gateway: object) -> None: ...

        text = refusal(made(Pay, saga_name="a", __init__=initialise))
        assert "Made() fails: TypeError: " in text
        assert "give each argument of __init__ a default" in text

    def test_because_it_raises(self) -> None:
        def initialise(self: Any) -> None:
            raise OSError("no gateway")

        text = refusal(made(Pay, saga_name="a", __init__=initialise))
        assert "Made() fails: OSError: no gateway" in text

    def test_for_a_dependency_that_is_no_list(self) -> None:
        class Texted(Pay):
            saga_name = "texted"

            @action("ship", depends_on="charge")  # type: ignore[arg-type]
            def ship(self, ctx: Context) -> None: ...

        assert "Texted.ship: depends_on is 'charge'" in refusal(Texted)


@pytest.mark.parametrize("name", ["order:refund", ":", "n" * 256, "a\0b", "\ud800", 7])
def test_a_name_that_makes_no_safe_id(name: Any) -> None:
    assert "Made.saga_name is " in refusal(made(Pay, saga_name=name))


@pytest.mark.parametrize(
    "value", [timedelta.max, timedelta(days=36_501), timedelta(0), timedelta(-1), 60, "1h"]
)
def test_a_deadline_that_cannot_be_counted(value: Any) -> None:
    text = refusal(made(Pay, saga_name="late", deadline=value))
    assert "Made.deadline is " in text
    assert "36,500 days at most" in text


@pytest.mark.parametrize(
    "value", [0, -1, float("inf"), float("nan"), 1e9, "5", True, timedelta(seconds=5)]
)
@pytest.mark.parametrize("decorator", [action, compensate])
def test_a_timeout_that_is_none(value: Any, decorator: Callable[..., Any]) -> None:
    def method(self: Saga, ctx: Context) -> None: ...

    name = "charge" if decorator is action else "refund"
    members = {name: decorator("charge", timeout_seconds=value)(method)}
    text = refusal(made(Pay, saga_name="t", **members))
    assert "Made.charge: timeout_seconds is " in text


@pytest.mark.parametrize("value", [-1, 1.5, None, "3"])
def test_retries_that_are_no_number(value: Any) -> None:
    def charge(self: Saga, ctx: Context) -> None: ...

    members = {"charge": action("charge", max_retries=value)(charge)}
    assert "max_retries is " in refusal(made(Pay, saga_name="r", **members))


def test_a_step_that_yields() -> None:
    def local(self: Saga, ctx: Context) -> Any:
        yield

    async def external(self: Saga, ctx: Context) -> Any:
        yield

    step = made(Pay, saga_name="y", charge=action("charge")(local))
    undo = made(Pay, saga_name="y", refund=compensate("charge")(external))
    for saga_class in (step, undo):
        assert "has a `yield`: nothing of it would ever run" in refusal(saga_class)


class TestWhatNobodyWouldCarryOut:
    @pytest.mark.parametrize(
        ("given", "use"),
        [
            ({"event_type": "order.paid"}, "outbox.enqueue("),
            ({"aggregate_type": "order"}, "outbox.enqueue("),
            ({"on_exit": lambda *_: None}, "use on_success and on_failure"),
            ({"on_success": publish_on_success(None, "order.paid")}, "outbox.enqueue("),
            ({"on_enter": "a text"}, "use a function"),
        ],
        ids=lambda value: str(value)[:20],
    )
    def test_of_a_step(self, given: dict[str, Any], use: str) -> None:
        def charge(self: Saga, ctx: Context) -> None: ...

        members = {"charge": action("charge", **given)(charge)}
        text = refusal(made(Pay, saga_name="s", **members))
        assert f"Made.charge: {next(iter(given))} " in text
        assert use in text

    @pytest.mark.parametrize(
        ("given", "use"),
        [
            ({"rate_limit": 5.0}, "use max_concurrent"),
            ({"schedule": "@daily"}, "let cron run a command"),
            ({"topic": "orders.created"}, "by its type, which is `source`"),
            ({"group": "g"}, "leave it out"),
            ({"idempotency_key": 7}, "the name of a field"),
            ({"idempotency_key": ""}, "the name of a field"),
            ({"source": ""}, "the type of the messages"),
        ],
        ids=lambda value: str(value)[:20],
    )
    def test_of_a_trigger(self, given: dict[str, Any], use: str) -> None:
        def on_pay(self: Saga, event: Context) -> Context:
            return event

        values = {"source": "s.t", "idempotency_key": "n", **given}
        members = {"on_pay": trigger(**values)(on_pay)}
        text = refusal(made(Pay, saga_name="t", **members))
        assert "Made.on_pay: " in text
        assert next(iter(given)) in text
        assert use in text

    def test_of_an_asynchronous_key(self) -> None:
        async def key(_: Any) -> str:
            return "k"

        def on_pay(self: Saga, event: Context) -> Context:
            return event

        on = trigger(source="s.t", idempotency_key=key)(on_pay)  # type: ignore[arg-type]
        assert "idempotency_key is" in refusal(made(Pay, saga_name="t", on_pay=on))

    def test_forward_recovery(self) -> None:
        @forward_recovery("charge")
        async def again(self: Saga, ctx: Context, error: Exception) -> None: ...

        text = refusal(made(Pay, saga_name="f", again=again))
        assert "Made.again: sagaz never calls what has @forward_recovery" in text
        assert "sagas retry" in text

    def test_a_manual_compensation(self) -> None:
        def refund(self: Saga, ctx: Context) -> None: ...

        manual: Any = {"compensation_type": CompensationType.MANUAL}
        members = {"refund": compensate("charge", **manual)(refund)}
        assert "MANUAL" in refusal(made(Pay, saga_name="m", **members))

    @pytest.mark.parametrize(
        ("listeners", "text"),
        [
            ([OutboxSagaListener(None)], "outbox.enqueue("),
            ([SagaListener], "write SagaListener()"),
            (SagaListener, "use a list of listeners"),
        ],
        ids=["outbox", "class", "no list"],
    )
    def test_listeners(self, listeners: Any, text: str) -> None:
        assert text in refusal(made(Pay, saga_name="l", listeners=listeners))

    def test_a_configuration_of_its_own(self) -> None:
        def initialise(self: Any) -> None:
            Pay.__init__(self, config=SagaConfig(metrics=False, logging=False))

        cls = made(Pay, saga_name="c", __init__=initialise)
        assert "use settings.SAGAZ" in refusal(cls)

    def test_a_run_of_its_own(self) -> None:
        async def run(self: Saga, *_: Any, **__: Any) -> None: ...

        assert "Made.run is never called" in refusal(made(Pay, saga_name="r", run=run))


class TestWhatAnAppsModuleHolds:
    def classes_in(self, **members: Any) -> list[type[Saga]]:
        module = ModuleType("orders.sagas")
        vars(module).update(members)
        return list(discovery.saga_classes_of(module, app="orders"))

    def test_an_instance_is_refused(self) -> None:
        with pytest.raises(
            SagaDefinitionError, match=r"orders\.sagas\.trip is a saga made by hand"
        ):
            self.classes_in(trip=Saga(name="trip"))

    def test_one_of_the_older_kind_too(self) -> None:
        from sagaz.core.saga import Saga as Imperative

        with pytest.raises(SagaDefinitionError, match="made by hand"):
            self.classes_in(trip=Imperative(name="trip"))  # type: ignore[call-arg]

    def test_a_class_of_another_module_of_the_app_counts(self) -> None:
        own = made(Pay, saga_name="own", __module__="orders.workflows")
        foreign = made(Pay, saga_name="foreign", __module__="stranger.sagas")
        assert self.classes_in(own=own, foreign=foreign) == [own]
