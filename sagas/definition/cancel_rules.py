"""Which messages cancel which sagas, as the apps declare it."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sagas.definition.identity import check_name
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
        SagaDefinitionError: messages of that type cancel already, or one of these cannot be used.
    """
    check_name(saga, where=f"the saga that {source!r} cancels")
    for name, given in (("idempotency_key", idempotency_key), ("reason", reason)):
        is_field = name == "idempotency_key" and isinstance(given, str) and given != ""
        if not (is_field or _is_plain_function(given) or (name == "reason" and given is None)):
            raise SagaDefinitionError(
                f"{name} of the messages {source!r}, which cancel {saga}, is {given!r:.80}: use a "
                "function of the payload, or for idempotency_key a field's name; none that is async"
            )
    if source in _rules:
        raise SagaDefinitionError(
            f"messages of type {source!r} cancel {_rules[source].saga_name} already: give those "
            f"that cancel {saga} another type"
        )
    _rules[source] = CancelRule(saga, idempotency_key, reason or (lambda _payload: ""))


def _is_plain_function(given: object) -> bool:
    return callable(given) and not inspect.iscoroutinefunction(given)


def cancelled_sagas() -> dict[str, str]:
    """Map the types of messages that cancel to the names of the sagas that they mean."""
    return {source: rule.saga_name for source, rule in _rules.items()}


def cancel_rule(source: str) -> CancelRule | None:
    """How messages of that type cancel, if they do."""
    return _rules.get(source)
