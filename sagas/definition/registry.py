"""Hold what the apps declare: one registry for the process, and another one in a test.

The functions here are those that apps declare with, and those by which the other rooms ask; all go
to the current registry. Django imports this module before there are models, and so it imports
neither models nor sagaz.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sagas.definition.cancel_rules import CancelRule, CancelRules, KeyRule
from sagas.definition.hooks import Ending, Hook, Hooks, SagaOutcome
from sagas.definition.saga_types import SagaType, SagaTypes

R = TypeVar("R")


@dataclass(frozen=True, slots=True, eq=False)
class Registry:
    """Hold saga types, hooks and cancel rules."""

    types: SagaTypes = field(default_factory=SagaTypes)
    hooks: Hooks = field(default_factory=Hooks)
    cancel_rules: CancelRules = field(default_factory=CancelRules)

    def copy(self) -> "Registry":
        """Return a registry of its own, with the same declarations in it."""
        return Registry(self.types.copy(), self.hooks.copy(), self.cancel_rules.copy())


_in_use = [Registry()]


def current() -> Registry:
    """Return the registry that is in use."""
    return _in_use[-1]


@contextmanager
def using(registry: Registry) -> Iterator[Registry]:
    """Use another registry until the block ends, in all threads: for tests."""
    _in_use.append(registry)
    try:
        yield registry
    finally:
        _in_use.pop()


def on_finish(saga_name: str) -> Callable[[Hook], Hook]:
    """Call the decorated function in the transaction that completes or rolls back a saga.

    Args:
        saga_name: the name of the sagas at whose end it is called.

    Raises:
        SagaDefinitionError: the name has another function already.
    """

    def register(hook: Hook) -> Hook:
        current().hooks.add_finish(saga_name, hook)
        return hook

    return register


def on_park(saga_name: str) -> Callable[[Hook], Hook]:
    """Call the decorated function in the transaction that parks a saga.

    Args:
        saga_name: the name of the sagas that it is called for.

    Raises:
        SagaDefinitionError: the name has another function already.
    """

    def register(hook: Hook) -> Hook:
        current().hooks.add_park(saga_name, hook)
        return hook

    return register


def on_start(hook: Callable[[], R]) -> Callable[[], R]:
    """Call the decorated function before a worker takes a saga up, to find wrong settings early."""
    current().hooks.add_start(hook)
    return hook


def cancel_on(
    source: str, *, saga: str, idempotency_key: KeyRule, reason: Callable[[Any], str] | None = None
) -> None:
    """Let messages of a type cancel sagas.

    Args:
        source: the type of the message, such as `orders.cancel`.
        saga: the saga's name.
        idempotency_key: the payload's field with the business key, or a function of the payload.
        reason: a function of the payload; its text is kept with the saga.

    Raises:
        SagaDefinitionError: messages of that type cancel already, or one of these cannot be used.
    """
    current().cancel_rules.add(source, saga_name=saga, key=idempotency_key, reason=reason)


def saga_type(name: str, version: int | None = None) -> SagaType | None:
    """Return the registered saga of that name and version; without a version, the newest."""
    return current().types.get(name, version)


def max_concurrent() -> dict[str, int]:
    """Map the names of sagas that have a limit to how many may run at a time: the newest's."""
    newest = current().types.newest()
    return {each.name: each.max_concurrent for each in newest if each.max_concurrent}


def cancel_rule(message_type: str) -> CancelRule | None:
    """Return how messages of that type cancel, if they do."""
    return current().cancel_rules.get(message_type)


def has_hook(saga_name: str, ending: Ending) -> bool:
    """Tell whether an app wants to take part in the transaction of this ending."""
    return current().hooks.has(saga_name, ending)


def call_hooks(outcome: SagaOutcome) -> None:
    """Call the app's function for this outcome, where there is one."""
    current().hooks.call(outcome)


def call_start_hooks() -> None:
    """Call each function that is to run before a worker starts."""
    current().hooks.call_start()
