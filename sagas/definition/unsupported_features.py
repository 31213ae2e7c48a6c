"""Refuse declarations that nothing would carry out, with a text that names the right way.

The whole table of sagaz's names is in docs/reference/sagaz-names.md.
"""

import inspect
from collections.abc import Iterator
from typing import Any

from sagaz import OutboxSagaListener
from sagaz import Saga as SagaClass
from sagaz.core.config import get_config
from sagaz.core.decorators import SagaStepDefinition
from sagaz.core.execution.graph import CompensationType
from sagaz.core.saga import Saga as ImperativeSaga
from sagaz.core.triggers import TriggerMetadata

from sagas.errors import SagaDefinitionError

_ENQUEUE = (
    "nothing would send that event: call outbox.enqueue(…) in a local step, or in a function of "
    "sagas.on_finish"
)
_OF_A_STEP = {
    "event_type": _ENQUEUE,
    "aggregate_type": _ENQUEUE,
    "on_exit": "sagaz never calls it: use on_success and on_failure",
}
_OF_A_TRIGGER = {
    "rate_limit": "nothing would limit it: use max_concurrent, which delays and drops nothing",
    "schedule": (
        "nothing would start it by the clock: let cron run a command that calls "
        "outbox.enqueue(…) with a message of that type"
    ),
    "topic": (
        "a message starts it by its type, which is `source`, on the topic that the consumer reads; "
        "leave topic out"
    ),
}
_HOOKS = ("on_enter", "on_success", "on_failure", "on_compensate")


def check_declared(saga: SagaClass) -> None:
    """Refuse a saga class with a declaration that nothing would carry out.

    Raises:
        SagaDefinitionError: there is such a declaration; the text says what to use instead.
    """
    where = type(saga).__qualname__
    for text in _refusals(saga):
        raise SagaDefinitionError(f"{where}{text}")


def is_made_by_hand(value: object) -> bool:
    """Tell whether an object is a saga of `Saga(name=…).add_step(…)`."""
    return isinstance(value, SagaClass | ImperativeSaga)


def _refusals(saga: SagaClass) -> Iterator[str]:
    if type(saga).run is not SagaClass.run:
        yield ".run is never called: a worker runs the steps. Put what it does into a step"
    if saga._config is not get_config():  # noqa: SLF001 - no public way
        yield ": it brings a SagaConfig of its own, of which nothing is heeded: use settings.SAGAZ"
    for name in dir(type(saga)):
        member = getattr(type(saga), name, None)
        recovery = getattr(member, "_saga_forward_recovery_meta", None)
        if recovery is not None:
            yield (
                f".{name}: sagaz never calls what has @forward_recovery. Behind a pivot a step is "
                f"tried again, and then the saga parks: give {recovery.for_step!r} enough "
                "max_retries, and let a person `sagas retry` or `sagas resolve` it"
            )
        trigger = getattr(member, "_trigger_metadata", None)
        if isinstance(trigger, TriggerMetadata):
            yield from (f".{name}: {text}" for text in _of_trigger(trigger))
    for step in saga.get_steps():
        yield from (f".{step.step_id}: {text}" for text in _of_step(step))
    yield from _of_listeners(saga)


def _of_step(step: SagaStepDefinition) -> Iterator[str]:
    for name, why in _OF_A_STEP.items():
        if getattr(step, name, None) is not None:
            yield f"{name} is given, but {why}"
    if step.compensation_type is CompensationType.MANUAL:
        yield (
            "its compensation is MANUAL, but would be run like any other: let it raise, with "
            "max_retries=0, and the saga parks until a person has seen to it"
        )
    for name in _HOOKS:
        hook = getattr(step, name)
        if hook is not None and not callable(hook):
            yield f"{name} is {hook!r:.80}: use a function"
        if getattr(hook, "__module__", "") == "sagaz.core.hooks._publishing":
            yield f"{name} publishes to an outbox of sagaz's own, and {_ENQUEUE}"


def _of_trigger(trigger: TriggerMetadata) -> Iterator[str]:
    source: object = trigger.source
    if not isinstance(source, str) or not source:
        yield f"its source is {source!r:.80}: use the type of the messages that start it"
    if trigger.rate_limit is not None:
        yield f"rate_limit is given, but {_OF_A_TRIGGER['rate_limit']}"
    for name in trigger.config:
        why = _OF_A_TRIGGER.get(name, "nothing reads it: leave it out")
        yield f"{name} is given to its trigger, but {why}"
    key: Any = trigger.idempotency_key
    if key is not None and (
        not (isinstance(key, str) or callable(key)) or key == "" or inspect.iscoroutinefunction(key)
    ):
        yield (
            f"idempotency_key is {key!r:.80}: use the name of a field of the payload, or a "
            "function of the payload that returns the key"
        )


def _of_listeners(saga: SagaClass) -> Iterator[str]:
    listeners: Any = saga._instance_listeners  # noqa: SLF001 - no public way
    if not isinstance(listeners, list | tuple):
        yield f".listeners is {listeners!r:.80}: use a list of listeners"
        return
    for listener in listeners:
        if isinstance(listener, type):
            yield f".listeners has a class: write {listener.__name__}()"
        if isinstance(listener, OutboxSagaListener):
            yield f".listeners has an OutboxSagaListener, an outbox of sagaz's own: {_ENQUEUE}"
