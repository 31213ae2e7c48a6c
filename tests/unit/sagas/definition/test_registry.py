from collections.abc import Callable
from typing import Any

import pytest
from sagaz import Saga, action, compensate
from sagaz.core.triggers import trigger

from orders.sagas import OrderSaga
from sagas.definition import discovery, registry
from sagas.definition.cross_checks import check_references
from sagas.definition.hooks import Hook
from sagas.definition.registry import Registry, cancel_on, on_finish, on_park
from sagas.definition.triggers import trigger_for
from sagas.errors import SagaDefinitionError
from tests.unit.sagas.saga_running import Context, Register


class Travel(Saga):
    saga_name = "travel"

    @trigger(source="travel.book", idempotency_key="trip")
    def on_book(self, event: Context) -> Context:
        return event

    @action("fly")
    async def fly(self, ctx: Context) -> None: ...

    @action("sleep", depends_on=["fly"])
    def sleep(self, ctx: Context) -> None: ...


def test_those_of_the_apps_are_found() -> None:
    found = registry.saga_type("order")
    assert found is not None
    assert (found.saga_class, found.version) == (OrderSaga, 1)
    assert registry.saga_type("no such") is None


def test_discovering_twice_changes_nothing() -> None:
    before = registry.saga_type("order")
    discovery.discover()
    assert registry.saga_type("order") == before


def test_a_message_finds_its_saga(register: Register) -> None:
    register(Travel)
    found = trigger_for("travel.book")
    assert found is not None
    saga_type, trigger_ = found
    assert (saga_type.name, trigger_.method_name) == ("travel", "on_book")
    assert trigger_for("travel.other") is None


def test_a_trigger_of_a_class_that_is_not_registered_starts_nothing(register: Register) -> None:
    register()
    assert trigger_for("travel.book") is None


def test_without_a_name_it_has_that_of_its_class(register: Register) -> None:
    class Unnamed(Saga):
        @action("one")
        def one(self, ctx: Context) -> None: ...

    register(Unnamed)
    assert registry.saga_type("Unnamed") is not None


class TestTheDefinitionHash:
    def hash_of(self, saga_class: type[Saga]) -> str:
        return discovery.describe(saga_class).definition_hash

    def test_stays_where_bodies_change(self) -> None:
        class Same(Saga):
            @action("sleep", depends_on=["fly"], max_retries=9)
            def another_method(self, ctx: Context) -> None:
                ctx["slept"] = True

            @action("fly", timeout_seconds=1)
            async def yet_another(self, ctx: Context) -> None: ...

        assert self.hash_of(Same) == self.hash_of(Travel)

    def test_changes_with_names_dependencies_kinds_and_pivots(self) -> None:
        class Renamed(Saga):
            @action("drive")
            async def fly(self, ctx: Context) -> None: ...

            @action("sleep", depends_on=["drive"])
            def sleep(self, ctx: Context) -> None: ...

        class Independent(Saga):
            parallel_roots = True

            @action("fly")
            async def fly(self, ctx: Context) -> None: ...

            @action("sleep")
            def sleep(self, ctx: Context) -> None: ...

        class OtherKind(Saga):
            @action("fly")
            def fly(self, ctx: Context) -> None: ...

            @action("sleep", depends_on=["fly"])
            def sleep(self, ctx: Context) -> None: ...

        class Pivot(Saga):
            @action("fly")
            async def fly(self, ctx: Context) -> None: ...

            @action("sleep", depends_on=["fly"], pivot=True)
            def sleep(self, ctx: Context) -> None: ...

        classes: list[type[Saga]] = [Travel, Renamed, Independent, OtherKind, Pivot]
        assert len({self.hash_of(saga_class) for saga_class in classes}) == len(classes)


@pytest.mark.usefixtures("empty_registry")
class TestRefusedAtStartUp:
    def refusal(self, *classes: type[Saga]) -> str:
        with pytest.raises(SagaDefinitionError) as refused:
            discovery.replace_all(classes)
        return str(refused.value)

    def test_two_with_one_name(self) -> None:
        class Twin(Saga):
            saga_name = "travel"

            @action("one")
            def one(self, ctx: Context) -> None: ...

        text = self.refusal(Travel, Twin)
        assert "Twin" in text
        assert "Travel" in text
        assert "'travel'" in text

    def test_two_for_one_message(self) -> None:
        class Insurance(Saga):
            saga_name = "insurance"

            @trigger(source="travel.book", idempotency_key="trip")
            def on_travel(self, event: Context) -> Context: ...  # type: ignore[empty-body]

            @action("insure")
            def insure(self, ctx: Context) -> None: ...

        text = self.refusal(Travel, Insurance)
        assert "'travel.book' would start travel.on_book and insurance.on_travel" in text

    def test_a_message_that_starts_and_cancels(self) -> None:
        cancel_on("travel.book", saga="travel", idempotency_key="trip")
        text = self.refusal(Travel)
        assert "would start travel.on_book and cancel sagas too" in text

    def test_two_rules_to_cancel(self) -> None:
        cancel_on("travel.off", saga="travel", idempotency_key="trip")
        with pytest.raises(SagaDefinitionError, match=r"'travel\.off' cancel travel already"):
            cancel_on("travel.off", saga="hotel", idempotency_key="trip")

    @pytest.mark.parametrize("register_hook", [on_finish, on_park])
    def test_two_functions_for_one_end(
        self,
        register_hook: Callable[[str], Callable[[Hook], Hook]],
    ) -> None:
        register_hook("travel")(lambda _: None)
        with pytest.raises(SagaDefinitionError, match="at the end of travel already"):
            register_hook("travel")(lambda _: None)

    def test_two_steps_with_one_name(self) -> None:
        class Doubled(Saga):
            @action("pay")
            def one(self, ctx: Context) -> None: ...

            @action("pay")
            def two(self, ctx: Context) -> None: ...

        assert "two steps named 'pay'" in self.refusal(Doubled)

    def test_an_unknown_dependency(self) -> None:
        class Lost(Saga):
            @action("pay", depends_on=["reserve"])
            def pay(self, ctx: Context) -> None: ...

        text = self.refusal(Lost)
        assert "pay depends on 'reserve'" in text

    def test_steps_in_a_circle(self) -> None:
        class Circle(Saga):
            @action("a", depends_on=["b"])
            def a(self, ctx: Context) -> None: ...

            @action("b", depends_on=["a"])
            def b(self, ctx: Context) -> None: ...

        assert "circle" in self.refusal(Circle)

    def test_a_compensation_for_no_step(self) -> None:
        class Mistyped(Saga):
            @action("pay")
            def pay(self, ctx: Context) -> None: ...

            @compensate("pya")
            def refund(self, ctx: Context) -> None: ...

        assert "refund undoes 'pya'" in self.refusal(Mistyped)

    def test_two_compensations_for_one_step(self) -> None:
        class Twice(Saga):
            @action("pay")
            def pay(self, ctx: Context) -> None: ...

            @compensate("pay")
            def refund(self, ctx: Context) -> None: ...

            @compensate("pay")
            def repay(self, ctx: Context) -> None: ...

        assert "both undo 'pay'" in self.refusal(Twice)

    def test_a_step_that_sagaz_would_pass_over(self) -> None:
        class Hidden(Saga):
            @action("pay")
            def pay(self, ctx: Context) -> None: ...

            @compensate("pay")
            def _refund(self, ctx: Context) -> None: ...

        assert "_refund" in self.refusal(Hidden)

    def test_no_steps(self) -> None:
        class Empty(Saga):
            pass

        assert "no steps" in self.refusal(Empty)

    @pytest.mark.parametrize("number", ["2", 0, 1.5, True])
    def test_a_version_that_is_no_number(self, number: Any) -> None:
        class Versioned(Saga):
            version = number

            @action("one")
            def one(self, ctx: Context) -> None: ...

        assert "version" in self.refusal(Versioned)

    @pytest.mark.parametrize("name", ["travel:back", "", "n" * 256, 7])
    def test_a_cancel_of_what_can_be_no_saga(self, name: Any) -> None:
        with pytest.raises(SagaDefinitionError, match=r"the saga that 'travel\.off' cancels is"):
            cancel_on("travel.off", saga=name, idempotency_key="trip")

    @pytest.mark.parametrize(
        "given", [{"idempotency_key": 7}, {"idempotency_key": ""}, {"reason": "r"}]
    )
    def test_a_cancel_that_cannot_be_read(self, given: Any) -> None:
        with pytest.raises(SagaDefinitionError, match="use a function of the payload"):
            cancel_on("travel.off", saga="travel", **{"idempotency_key": "trip", **given})


class TestWhatIsHungOntoNoSaga:
    """By a name that is mistyped: it would never be called, or cancel nothing."""

    @pytest.fixture(autouse=True)
    def _one_saga(self, empty_registry: Registry) -> None:
        empty_registry.types.add(discovery.describe(Travel))

    @pytest.mark.parametrize("register_hook", [on_finish, on_park])
    def test_a_function(self, register_hook: Callable[[str], Callable[[Hook], Hook]]) -> None:
        register_hook("travel")(lambda _: None)
        check_references()
        register_hook("travle")(lambda _: None)
        with pytest.raises(SagaDefinitionError, match=r"on_park is for the saga 'travle'.*travel"):
            check_references()

    def test_a_cancel(self) -> None:
        cancel_on("travel.off", saga="travel", idempotency_key="trip")
        check_references()
        cancel_on("travel.away", saga="travle", idempotency_key="trip")
        with pytest.raises(SagaDefinitionError, match=r"cancel_on\('travel\.away'\) is for"):
            check_references()


class TestOneOfATestsOwn:
    def test_keeps_what_is_declared_to_itself(self) -> None:
        before = registry.current()
        with registry.using(Registry()) as own:
            on_finish("travel")(lambda _: None)
            cancel_on("travel.off", saga="travel", idempotency_key="trip")
            discovery.register(Travel)
            assert registry.current() is own
            assert own.types.names() == ["travel"]
        assert registry.current() is before
        assert registry.saga_type("travel") is None
        assert registry.cancel_rule("travel.off") is None
        assert "travel" not in before.hooks.saga_names()

    def test_a_copy_has_the_same_and_changes_alone(self) -> None:
        with registry.using(registry.current().copy()) as own:
            assert registry.saga_type("order") is not None
            own.types.clear()
            assert registry.saga_type("order") is None
        assert registry.saga_type("order") is not None

    def test_is_left_when_the_block_raises(self) -> None:
        before = registry.current()
        with pytest.raises(ZeroDivisionError), registry.using(Registry()):
            _ = 1 / 0
        assert registry.current() is before
