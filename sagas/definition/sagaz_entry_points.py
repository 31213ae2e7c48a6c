"""Disable sagaz's own ways to run a saga: in memory, without a journal.

Each disabled function raises `NotJournalled`, with a text that names the right way. sagaz's engine
stays: `sagas.run.saga_run` drives the engine, and the journal with it.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import sagaz
from sagaz import Saga as SagaClass
from sagaz.core import config
from sagaz.core.execution.graph import SagaExecutionGraph
from sagaz.core.saga import Saga as ImperativeSaga
from sagaz.core.triggers import BrokerTriggerConsumer, CronScheduler, TriggerEngine
from sagaz.integrations import django as integration

from sagas.errors import NotJournalled

_ORIGINAL = "sagas_original"
"""The attribute in which a disabled function keeps the original."""

_RUN = (
    "would run the saga in memory, without a journal: a crash would lose it. Call "
    "sagas.run_saga_sync(…), or enqueue the message that starts it; in a unit test, await "
    "sagas.testing.run_in_memory(…)"
)
_BY_HAND = (
    "would run a saga made by hand, in memory, without a journal: write it as a class in an app's "
    "sagas.py, with methods that have @action(…) and @compensate(…)"
)
_FIRE = (
    "would start sagas in memory, without a journal: call outbox.enqueue(…) in a transaction, with "
    "the trigger's source as the message's type, and a consumer starts them"
)
_WEBHOOK = (
    "would answer that an event is accepted, and nothing would be journalled: answer it in a view "
    "of your own that calls outbox.enqueue(…) in a transaction, with the trigger's source as the "
    "message's type"
)
_STATUS = "knows no saga of the journal: read sagas.models.Saga, by sagas.saga_id(name, key)"
_ENTRY_POINTS: list[tuple[Any, str, str]] = [
    (SagaClass, "run", _RUN),
    (ImperativeSaga, "execute", _BY_HAND),
    (ImperativeSaga, "execute_from_snapshot", _BY_HAND),
    (SagaExecutionGraph, "execute_compensations", _BY_HAND),
    (TriggerEngine, "fire", _FIRE),
    (CronScheduler, "start", "would start sagas in memory: let cron run a command that enqueues"),
    (BrokerTriggerConsumer, "start", _FIRE),
    (BrokerTriggerConsumer, "handle_message", _FIRE),
    (integration, "run_saga_sync", _RUN),
    (integration, "sagaz_webhook_view", _WEBHOOK),
    (integration, "sagaz_webhook_status_view", _STATUS),
    (integration, "get_webhook_status", _STATUS),
    # Called by a view that somebody has imported before the view was disabled.
    (integration, "_ensure_listener_registered", _WEBHOOK),
    (config, "configure", "has no effect here: use settings.SAGAZ"),
    (sagaz, "configure", "has no effect here: use settings.SAGAZ"),
]


def disable() -> None:
    """Let each of sagaz's ways to run a saga without a journal raise NotJournalled."""
    for owner, name, why in _ENTRY_POINTS:
        # Disabled twice, the original would be lost.
        if not hasattr(getattr(owner, name), _ORIGINAL):
            setattr(owner, name, _refusing(getattr(owner, name), why))


def original_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the original of a disabled function of sagaz; any other function as it is."""
    found: Callable[..., Any] = getattr(function, _ORIGINAL, function)
    return found


def _refusing(original: Callable[..., Any], why: str) -> Callable[..., Any]:
    text = f"sagaz's {original.__qualname__} {why}"

    @wraps(original)
    def refuse(*_: Any, **__: Any) -> Any:
        raise NotJournalled(text)

    @wraps(original)
    async def refuse_async(*_: Any, **__: Any) -> Any:
        raise NotJournalled(text)

    refusing = refuse_async if inspect.iscoroutinefunction(original) else refuse
    setattr(refusing, _ORIGINAL, original)
    return refusing
