"""Which messages cancel which sagas, as the apps declare it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sagas.errors import SagaDefinitionError

KeyRule = str | Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class CancelRule:
    """Which saga a cancelling command means. `key`: as a trigger's `idempotency_key`."""

    saga_name: str
    key: KeyRule
    reason: Callable[[Any], str]


_rules: dict[str, CancelRule] = {}


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
        SagaDefinitionError: messages of that type cancel already.
    """
    if source in _rules:
        raise SagaDefinitionError(
            f"messages of type {source!r} cancel {_rules[source].saga_name} already: give those "
            f"that cancel {saga} another type"
        )
    _rules[source] = CancelRule(saga, idempotency_key, reason or (lambda _payload: ""))


def cancel_rule(source: str) -> CancelRule | None:
    """How messages of that type cancel, if they do."""
    return _rules.get(source)
