"""Keep the rules by which messages cancel sagas."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sagas.definition.identity import check_name
from sagas.errors import SagaDefinitionError

KeyRule = str | Callable[[Any], str]
"""How to find a business key: a field of the payload, or a function of the payload."""


@dataclass(frozen=True, slots=True)
class CancelRule:
    """Say which saga a cancelling message means.

    Attributes:
        saga_name: the name of the saga.
        key: how to find the saga's business key in the payload.
        reason: a function of the payload; its text is kept with the saga.
    """

    saga_name: str
    key: KeyRule
    reason: Callable[[Any], str]


class CancelRules:
    """Keep cancel rules, for each type of message one rule at most."""

    def __init__(self) -> None:
        self._by_type: dict[str, CancelRule] = {}

    def add(
        self,
        message_type: str,
        *,
        saga_name: str,
        key: KeyRule,
        reason: Callable[[Any], str] | None,
    ) -> None:
        """Add a rule for messages of a type.

        Raises:
            SagaDefinitionError: messages of that type cancel already, or a part of the rule cannot
                be used.
        """
        check_name(saga_name, where=f"the saga that {message_type!r} cancels")
        if not (_is_plain_function(key) or (isinstance(key, str) and key)):
            raise _unusable("idempotency_key", key, message_type, saga_name)
        if not (_is_plain_function(reason) or reason is None):
            raise _unusable("reason", reason, message_type, saga_name)
        if message_type in self._by_type:
            raise SagaDefinitionError(
                f"messages of type {message_type!r} cancel "
                f"{self._by_type[message_type].saga_name} already: give those that cancel "
                f"{saga_name} another type"
            )
        self._by_type[message_type] = CancelRule(saga_name, key, reason or _no_reason)

    def get(self, message_type: str) -> CancelRule | None:
        """Return the rule for messages of this type, or None."""
        return self._by_type.get(message_type)

    def saga_names(self) -> dict[str, str]:
        """Map each type of message with a rule to the name of the cancelled saga."""
        return {message_type: rule.saga_name for message_type, rule in self._by_type.items()}

    def copy(self) -> "CancelRules":
        """Return an independent copy."""
        copied = CancelRules()
        copied._by_type = dict(self._by_type)
        return copied


def _is_plain_function(given: object) -> bool:
    return callable(given) and not inspect.iscoroutinefunction(given)


def _unusable(
    argument: str, given: object, message_type: str, saga_name: str
) -> SagaDefinitionError:
    return SagaDefinitionError(
        f"{argument} of the messages {message_type!r}, which cancel {saga_name}, is {given!r:.80}: "
        "use a function of the payload, or for idempotency_key a field's name; none that is async"
    )


def _no_reason(_payload: Any) -> str:
    return ""
