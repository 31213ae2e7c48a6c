"""Each public name of sagaz works durably, is refused in a sentence, or is a value: the tables of
docs/reference/sagaz-names.md say which, and here each row is held to what it says."""

import asyncio
import inspect
import json
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple
from uuid import UUID

import pytest
import sagaz
import sagaz.core.triggers as triggers_of_sagaz
from django.test import RequestFactory
from django.urls import path
from sagaz import Saga, SagaConfig, action, compensate
from sagaz.core.execution.graph import CompensationType
from sagaz.core.saga import Saga as ImperativeSaga
from sagaz.core.triggers import trigger
from sagaz.integrations import django as integration

from brokers import Record
from orders.sagas import OrderSaga
from sagas import (
    DjangoSagaStorage,
    NotJournalled,
    SagaDefinitionError,
    StepRejected,
    checks,
    idempotency_key,
)
from sagas.definition import discovery, registry, sagaz_configuration, sagaz_entry_points
from sagas.definition.sagaz_entry_points import original_of
from sagas.definition.triggers import trigger_for
from sagas.inbox import accepting
from sagas.models import ACTIVE
from sagas.models import Saga as SagaRow
from sagas.testing import run_in_memory
from tests.processes import ROOT
from tests.unit.sagas.inbox.test_accepting import record
from tests.unit.sagas.saga_running import Context, Register, history_of, working
from tests.unit.waiting import until

WORKS, REFUSED, VALUE = "works", "refused", "value"


def rows() -> dict[str, str]:
    """The verdict of each name in the tables."""
    text = (ROOT / "docs/reference/sagaz-names.md").read_text()
    found: dict[str, str] = {}
    for line in text.splitlines():
        if names := re.match(r"\| (`[^|]*`) \| (\w+) \|", line):
            for name in re.findall(r"`([^`]+)`", names[1]):
                assert found.setdefault(name, names[2]) == names[2], f"{name} has two verdicts"
    return found


def public_names() -> set[str]:
    functions: dict[str, Callable[..., Any]] = {
        "action": action,
        "compensate": compensate,
        "trigger": trigger,
    }
    parameters = {
        f"{name}.{parameter}"
        for name, function in functions.items()
        for parameter in inspect.signature(function).parameters
    }
    of_a_saga = {f"Saga.{name}" for name in dir(Saga) if not name.startswith("_")}
    modules: tuple[Any, ...] = (sagaz, triggers_of_sagaz, integration)
    return parameters | of_a_saga | {name for module in modules for name in module.__all__}


def test_each_name_has_a_row_and_each_row_a_name() -> None:
    assert set(rows()) == public_names()


def test_each_verdict_is_one_of_three_and_checked_here() -> None:
    by_verdict: dict[str, set[str]] = {WORKS: set(), REFUSED: set(), VALUE: set()}
    for name, verdict in rows().items():
        by_verdict[verdict].add(name)
    assert by_verdict[REFUSED] == set(REFUSALS)
    assert by_verdict[WORKS] == set(EVIDENCE)


# --- Refused


def handmade() -> Saga:
    async def step(ctx: Context) -> Context:
        raise AssertionError("it was run")

    saga: Any = Saga(name="handmade")
    return saga.add_step("one", step)  # type: ignore[no-any-return]


def imperative() -> Any:
    saga: Any = ImperativeSaga
    return saga(name="handmade")


def defined(**members: Any) -> None:
    """Register a class of a step, and these members."""

    def one(self: Saga, ctx: Context) -> None: ...

    discovery.register(type("Made", (Saga,), {"one": action("one")(one), **members}))


def step_with(**given: Any) -> None:
    def two(self: Saga, ctx: Context) -> None: ...

    defined(two=action("two", depends_on=["one"], **given)(two))


def trigger_with(**given: Any) -> None:
    def on(self: Saga, event: Context) -> Context:
        return event

    defined(on=trigger(source="made.on", idempotency_key="n", **given)(on))


def own_config(self: Any) -> None:
    Saga.__init__(self, config=SagaConfig(metrics=False, logging=False))


def in_a_module(value: Any) -> None:
    module = ModuleType("orders.sagas")
    vars(module)["value"] = value
    list(discovery.saga_classes_of(module, app="orders"))


def checked(**settings: Any) -> None:
    """Raise the first error of `manage.py check`."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setattr(f"django.conf.settings.{name}", value)
        for found in checks.check_sagaz_integration(None):
            raise SagaDefinitionError(f"{found.id}: {found.msg} {found.hint}")


def request() -> Any:
    return RequestFactory().post("/", json.dumps({"n": 1}), content_type="application/json")


OPERATIONS: Any = sagaz
REFUSALS: dict[str, tuple[Callable[[], Any], str]] = {
    "forward_recovery": (
        lambda: defined(again=sagaz.forward_recovery("one")(lambda *_: None)),  # type: ignore[attr-defined]
        "max_retries",
    ),
    "OutboxSagaListener": (
        lambda: defined(listeners=[sagaz.OutboxSagaListener(None)]),
        "outbox.enqueue(",
    ),
    "SagaConfig": (lambda: defined(__init__=own_config), "settings.SAGAZ"),
    "configure": (
        lambda: OPERATIONS.configure(SagaConfig(metrics=False, logging=False)),
        "settings.SAGAZ",
    ),
    "SagaOrchestrator": (
        lambda: OPERATIONS.SagaOrchestrator().execute_saga(imperative()),
        "write it as a class",
    ),
    "SagaExecutionGraph": (
        lambda: OPERATIONS.SagaExecutionGraph().execute_compensations({}),
        "write it as a class",
    ),
    "action.event_type": (lambda: step_with(event_type="a.b"), "outbox.enqueue("),
    "action.aggregate_type": (lambda: step_with(aggregate_type="a"), "outbox.enqueue("),
    "action.on_exit": (lambda: step_with(on_exit=print), "on_success and on_failure"),
    "trigger.rate_limit": (lambda: trigger_with(rate_limit=1.0), "max_concurrent"),
    "trigger.kwargs": (lambda: trigger_with(schedule="@daily"), "let cron run"),
    "Saga.run": (lambda: OrderSaga().run({"order_id": "1"}), "sagas.run_saga_sync("),
    "Saga.add_step": (lambda: in_a_module(handmade()), "write it as a class"),
    "fire_event": (lambda: triggers_of_sagaz.fire_event("orders.place", {}), "outbox.enqueue("),
    "TriggerEngine": (
        lambda: triggers_of_sagaz.TriggerEngine().fire("orders.place", {}),  # type: ignore[attr-defined]
        "outbox.enqueue(",
    ),
    "BrokerTriggerConsumer": (
        lambda: triggers_of_sagaz.BrokerTriggerConsumer(None).start(),  # type: ignore[call-arg, attr-defined]
        "outbox.enqueue(",
    ),
    "CronScheduler": (lambda: triggers_of_sagaz.CronScheduler().start(), "let cron run"),  # type: ignore[attr-defined]
    "run_saga_sync": (lambda: integration.run_saga_sync(OrderSaga(), {}), "sagas.run_saga_sync("),
    "sagaz_webhook_view": (
        lambda: integration.sagaz_webhook_view(request(), "orders.place"),
        "outbox.enqueue(",
    ),
    "sagaz_webhook_status_view": (
        lambda: integration.sagaz_webhook_status_view(request(), "orders.place", "c"),
        "sagas.models.Saga",
    ),
    "get_webhook_status": (lambda: integration.get_webhook_status("c"), "sagas.models.Saga"),
    "SagaDjangoMiddleware": (
        lambda: checked(MIDDLEWARE=["sagaz.integrations.django.SagaDjangoMiddleware"]),
        "outbox.middleware.CorrelationMiddleware",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_in_a_sentence_that_says_what_to_use(name: str, register: Register) -> None:
    register()
    do, use = REFUSALS[name]
    with pytest.raises((NotJournalled, SagaDefinitionError)) as refused:
        asyncio.run(doing(do))
    assert use in str(refused.value)


async def doing(do: Callable[[], Any]) -> None:
    done = do()
    if inspect.isawaitable(done):
        await done


class TestOtherWaysIn:
    @pytest.mark.parametrize("value", [handmade, imperative], ids=lambda make: make.__name__)
    def test_a_saga_made_by_hand_runs_nowhere(self, value: Callable[[], Any]) -> None:
        saga: Any = value()
        with pytest.raises(NotJournalled, match="without a journal"):
            asyncio.run(saga.run({}) if isinstance(saga, Saga) else saga.execute())

    def test_a_view_that_was_imported_before(self) -> None:
        view = original_of(integration.sagaz_webhook_view)
        with pytest.raises(NotJournalled, match=r"outbox\.enqueue"):
            view(request(), "orders.place")

    def test_a_url_that_goes_to_it(self, settings: Any) -> None:
        urls = ModuleType("urls")
        vars(urls)["urlpatterns"] = [path("hooks/<str:source>/", integration.sagaz_webhook_view)]
        settings.ROOT_URLCONF = urls
        [found] = checks.check_sagaz_integration(None)
        assert found.id == "sagas.E003"
        assert "hooks/<str:source>/" in found.msg
        assert "outbox.enqueue(" in str(found.hint)

    def test_a_configuration_that_was_made_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ours = sagaz.get_config()  # type: ignore[attr-defined]
        sagaz_configuration.check_unchanged(ours)
        other = SagaConfig(metrics=False, logging=False)
        monkeypatch.setattr("sagaz.core.config._global_config", other)
        with pytest.raises(SagaDefinitionError, match=r"settings\.SAGAZ"):
            sagaz_configuration.check_unchanged(ours)
        other.storage = DjangoSagaStorage()
        with pytest.raises(SagaDefinitionError, match=r"settings\.SAGAZ"):
            sagaz_configuration.apply(ours)

    def test_closing_twice_closes_once(self) -> None:
        before = Saga.run
        sagaz_entry_points.disable()
        assert Saga.run is before


# --- Values


@pytest.mark.parametrize("name", sorted(n for n, v in rows().items() if v == VALUE))
def test_a_value_runs_nothing(name: str) -> None:
    """It has no method by which sagaz runs a saga."""
    if "." in name:
        return  # a parameter that only describes
    modules: tuple[Any, ...] = (sagaz, triggers_of_sagaz, integration)
    [value] = {getattr(module, name) for module in modules if name in module.__all__}
    assert not {"run", "execute", "execute_saga", "fire", "start"} & {*dir(value)}
    assert not inspect.iscoroutinefunction(value)


# --- Works


class Heard(sagaz.SagaListener):
    """Notes what it hears."""

    events: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_"):
            Heard.events.append(name)
        return super().__getattribute__(name)


def hook(name: str) -> Callable[..., None]:
    return lambda *_: Heard.events.append(name)


class Everything(Saga):
    """All that works, in one class. A second attempt of `two` and of its compensation is needed:
    the first hangs."""

    saga_name = "everything"
    listeners = [Heard(), *sagaz.default_listeners(tracing=True)]  # type: ignore[attr-defined]
    calls: list[str] = []

    @trigger(source="all.go", idempotency_key="n", max_concurrent=3)
    def on_go(self, event: Context) -> Context:
        return event

    @action("one", on_enter=hook("one entered"), on_success=hook("one done"), on_failure=hook("no"))
    def first(self, _: Context) -> Context:
        return {"one": 1}

    @compensate("one", compensation_type=CompensationType.SEMANTIC)  # type: ignore[call-arg]
    def unfirst(self, ctx: Context) -> None: ...

    @action("two", depends_on=["one"], max_retries=1, timeout_seconds=0.2)
    async def second(self, ctx: Context) -> Context:
        await self._hang_once("two", ctx)
        return {"two": ctx["one"] + 1}

    @compensate(
        "two", max_retries=1, timeout_seconds=0.2, on_compensate=hook("two is being undone")
    )
    async def unsecond(self, ctx: Context) -> None:
        await self._hang_once("untwo", ctx)

    @action("three", depends_on=["two"], pivot=True, on_failure=hook("three failed"))
    def third(self, ctx: Context) -> None:
        if ctx.get("fails"):
            raise StepRejected("it shall be undone")

    async def _hang_once(self, name: str, ctx: Context) -> None:
        call = f"{name} of {ctx['n']}"
        self.calls.append(call)
        if self.calls.count(call) == 1:
            await asyncio.Event().wait()


class Seen(NamedTuple):
    """What came of one run of `Everything` that completed, and of one that was undone."""

    done: SagaRow
    undone: SagaRow
    events: list[str]
    attempts: dict[UUID, dict[str, list[str]]]

    def tried(self, row: SagaRow, step: str) -> list[str]:
        return self.attempts[row.id].get(step, [])


TWICE = ["unknown", "done"]
STORAGE = DjangoSagaStorage()


def drawn(seen: Seen) -> str:
    drawing = Everything().to_mermaid_with_execution(str(seen.done.id), STORAGE)
    return asyncio.run(drawing)


def has_completed(seen: Seen) -> bool:
    return (seen.done.status, seen.undone.status) == ("completed", "rolled_back")


def names_of(levels: list[list[Any]]) -> list[list[str]]:
    return [[step.step_id for step in level] for level in levels]


def is_found(_: Seen) -> bool:
    found = trigger_for("all.go")
    return found is not None and found[1].metadata.idempotency_key == "n"


def dry_run(_: Seen) -> bool:
    calls = len(Everything.calls)
    engine: Any = OPERATIONS.DryRunEngine()
    done = asyncio.run(engine.run(Everything(), {}, OPERATIONS.DryRunMode.VALIDATE))
    return bool(done.success) and len(Everything.calls) == calls


EVIDENCE: dict[str, Callable[[Seen], bool]] = {
    "Saga": has_completed,
    "action": lambda seen: seen.tried(seen.done, "one:F") == ["done"],
    "compensate": lambda seen: seen.tried(seen.undone, "one:C") == ["done"],
    "CompensationType": lambda seen: seen.tried(seen.undone, "one:C") == ["done"],
    "SagaListener": lambda seen: "on_saga_complete" in seen.events,
    "LoggingSagaListener": has_completed,
    "MetricsSagaListener": has_completed,
    "TracingSagaListener": has_completed,
    "default_listeners": lambda _: len(Everything.listeners or []) == 4,
    "get_config": lambda _: OPERATIONS.get_config().storage is None,
    "DryRunEngine": dry_run,
    "action.name": lambda seen: bool(seen.tried(seen.done, "one:F")),
    "action.depends_on": lambda seen: list(seen.attempts[seen.done.id]) == [
        "one:F", "two:F", "three:F",
    ],
    "action.timeout_seconds": lambda seen: seen.tried(seen.done, "two:F") == TWICE,
    "action.max_retries": lambda seen: seen.tried(seen.done, "two:F") == TWICE,
    "action.pivot": lambda seen: seen.done.past_pivot and not seen.undone.past_pivot,
    "action.on_enter": lambda seen: seen.events.count("one entered") == 2,
    "action.on_success": lambda seen: seen.events.count("one done") == 2,
    "action.on_failure": lambda seen: seen.events.count("three failed") == 1,
    "compensate.for_step": lambda seen: bool(seen.tried(seen.undone, "two:C")),
    "compensate.compensation_type": lambda seen: seen.tried(seen.undone, "one:C") == ["done"],
    "compensate.timeout_seconds": lambda seen: seen.tried(seen.undone, "two:C") == TWICE,
    "compensate.max_retries": lambda seen: seen.tried(seen.undone, "two:C") == TWICE,
    "compensate.on_compensate": lambda seen: seen.events.count("two is being undone") == 1,
    "trigger": is_found,
    "TriggerMetadata": is_found,
    "TriggerRegistry": is_found,
    "RegisteredTrigger": is_found,
    "trigger.source": is_found,
    "trigger.idempotency_key": lambda seen: (seen.done.key, seen.undone.key) == ("1", "2"),
    "trigger.max_concurrent": lambda _: registry.max_concurrent() == {"everything": 3},
    "Saga.saga_name": lambda seen: seen.done.name == "everything",
    "Saga.listeners": lambda seen: "on_step_success" in seen.events,
    "Saga.get_step": lambda _: bool(OPERATIONS.Saga.get_step(Everything(), "one")),
    "Saga.get_steps": lambda _: len(Everything().get_steps()) == 3,
    "Saga.get_execution_order": lambda _: names_of(Everything().get_execution_order()) == [
        ["one"], ["two"], ["three"],
    ],
    "Saga.get_pivot_steps": lambda _: OPERATIONS.Saga.get_pivot_steps(Everything()) == ["three"],
    "Saga.to_mermaid": lambda _: "three" in Everything().to_mermaid(),
    "Saga.to_mermaid_markdown": lambda _: "```mermaid" in OPERATIONS.Saga.to_mermaid_markdown(
        Everything()
    ),
    "Saga.to_mermaid_with_execution": lambda seen: "SUCCESS" in drawn(seen),
}  # fmt: skip


def go(n: int, **event: Any) -> Record:
    return record({"n": n, **event}, ce_type="all.go", offset=n)


@pytest.mark.django_db(transaction=True)
def test_what_works_works_durably(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    register(Everything)
    monkeypatch.setattr(Heard, "events", [])
    monkeypatch.setattr(Everything, "calls", [])
    assert accepting.accept([go(1), go(2, fails=True)], consumer="sagas") == 2
    with working():
        until(lambda: not SagaRow.objects.filter(status__in=ACTIVE).exists())
    done, undone = SagaRow.objects.order_by("key")
    attempts: dict[UUID, dict[str, list[str]]] = {done.id: {}, undone.id: {}}
    for saga_id, tried in attempts.items():
        for step, _, status in history_of(saga_id):
            tried.setdefault(step, []).append(status)
    seen = Seen(done, undone, [*Heard.events], attempts)
    assert [name for name, works in EVIDENCE.items() if not works(seen)] == []


class TestInAUnitTest:
    def test_the_steps_are_run_in_memory(self) -> None:
        class Plain(Saga):
            @action("one")
            def one(self, _: Context) -> Context:
                return {"key": idempotency_key()}

            @action("two", depends_on=["one"])
            async def two(self, ctx: Context) -> Context:
                return {"two": ctx["key"], "asked": ctx["asked"]}

        context = asyncio.run(run_in_memory(Plain(), {"asked": 1}))
        assert (context["two"], context["asked"]) == ("test:one:F", 1)

    def test_what_fails_is_undone(self) -> None:
        undone: list[str] = []

        class Plain(Saga):
            @action("one")
            def one(self, ctx: Context) -> None: ...

            @compensate("one")
            def unone(self, _: Context) -> None:
                undone.append(idempotency_key())

            @action("two", depends_on=["one"])
            async def two(self, _: Context) -> None:
                raise StepRejected("no")

        with pytest.raises(StepRejected):
            asyncio.run(run_in_memory(Plain(), {}))
        assert undone == ["test:one:C"]
