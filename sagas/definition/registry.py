"""Hold the apps' declarations in a registry: a single registry, but for tests.

Apps declare by the functions here, and the other rooms ask by the functions here; all of them go to
the current registry. Django imports this module before there are models, so neither models nor
sagaz are imported here.
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
        """Return an independent copy."""
        return Registry(self.types.copy(), self.hooks.copy(), self.cancel_rules.copy())


# A list, and no context variable: the threads of a worker must see what a test has put in place.
_in_use = [Registry()]


def current() -> Registry:
    """Return the registry in use."""
    return _in_use[-1]


@contextmanager
def using(registry: Registry) -> Iterator[Registry]:
    """Use a different registry until the block ends, in all threads: for tests."""
    _in_use.append(registry)
    try:
        yield registry
    finally:
        _in_use.pop()


def on_finish(saga_name: str) -> Callable[[Hook], Hook]:
    """Call the decorated function in the transaction that completes or rolls back a saga.

    Args:
        saga_name: the name of the sagas.

    Raises:
        SagaDefinitionError: the name has a different function already.
    """

    def register(hook: Hook) -> Hook:
        current().hooks.add_finish(saga_name, hook)
        return hook

    return register


def on_park(saga_name: str) -> Callable[[Hook], Hook]:
    """Call the decorated function in the transaction that parks a saga.

    Args:
        saga_name: the name of the sagas.

    Raises:
        SagaDefinitionError: the name has a different function already.
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
        SagaDefinitionError: the type has a rule already, or an argument cannot be used.
    """
    current().cancel_rules.add(source, saga_name=saga, key=idempotency_key, reason=reason)


def saga_type(name: str, version: int | None = None) -> SagaType | None:
    """Return the registered saga of a name and version; without a version, the newest."""
    return current().types.get(name, version)


def max_concurrent() -> dict[str, int]:
    """Map names of sagas to how many may run at a time; the newest version decides."""
    newest = current().types.newest()
    return {each.name: each.max_concurrent for each in newest if each.max_concurrent}


def cancel_rule(message_type: str) -> CancelRule | None:
    """Return the cancel rule for messages of a type, or None."""
    return current().cancel_rules.get(message_type)


def has_hook(saga_name: str, ending: Ending) -> bool:
    """Tell whether an app wants to take part in the transaction of a saga's ending."""
    return current().hooks.has(saga_name, ending)


def call_hooks(outcome: SagaOutcome) -> None:
    """Call the app's function for an outcome, if there is one."""
    current().hooks.call(outcome)


def call_start_hooks() -> None:
    """Call the apps' functions for a worker's start."""
    current().hooks.call_start()
