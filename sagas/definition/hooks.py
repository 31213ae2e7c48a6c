"""What an app does when one of its sagas ends or parks, in the same transaction."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar
from uuid import UUID

from saga_runtime.text import bounded
from sagas.errors import SagaDefinitionError


class Ending(StrEnum):
    COMPLETED = "completed"
    ROLLED_BACK = "rolled_back"
    PARKED = "parked"


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaOutcome:
    """How a saga ended. `reason`: what failed it, as the journal has it; empty when it completed.
    `cancelled`: it was rolled back because somebody asked for it."""

    saga_id: UUID
    name: str
    key: str
    ending: Ending
    context: dict[str, Any]
    reason: str = ""
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Make the reason what the journal keeps."""
        object.__setattr__(self, "reason", bounded(self.reason))


R = TypeVar("R")
Hook = Callable[[SagaOutcome], None]
_finish_hooks: dict[str, Hook] = {}
_park_hooks: dict[str, Hook] = {}
_start_hooks: list[Callable[[], object]] = []


def on_finish(saga_name: str) -> Callable[[Hook], Hook]:
    """Call this function in the transaction that completes or rolls back a saga of that name.

    Raises:
        SagaDefinitionError: there is one already.
    """
    return _registering(_finish_hooks, saga_name)


def on_park(saga_name: str) -> Callable[[Hook], Hook]:
    """Call this function in the transaction that parks a saga of that name.

    Raises:
        SagaDefinitionError: there is one already.
    """
    return _registering(_park_hooks, saga_name)


def on_start(hook: Callable[[], R]) -> Callable[[], R]:
    """Call this function before a worker takes anything up, to find a wrong setting in time."""
    _start_hooks.append(hook)
    return hook


def call_start_hooks() -> None:
    for hook in _start_hooks:
        hook()


def names_with_hooks() -> set[str]:
    """Name the sagas at whose end an app wants a function called."""
    return {*_finish_hooks, *_park_hooks}


def has_hook(saga_name: str, ending: Ending) -> bool:
    """Whether an app wants to take part in this ending's transaction."""
    return saga_name in (_park_hooks if ending is Ending.PARKED else _finish_hooks)


def call_hooks(outcome: SagaOutcome) -> None:
    hooks = _park_hooks if outcome.ending is Ending.PARKED else _finish_hooks
    hook = hooks.get(outcome.name)
    if hook is not None:
        hook(outcome)


def _registering(hooks: dict[str, Hook], saga_name: str) -> Callable[[Hook], Hook]:
    def register(hook: Hook) -> Hook:
        if hooks.setdefault(saga_name, hook) is not hook:
            raise SagaDefinitionError(
                f"a function is called at the end of {saga_name} already: call both from one"
            )
        return hook

    return register
