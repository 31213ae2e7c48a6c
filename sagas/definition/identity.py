"""Derive the ids of sagas and the idempotency keys of their steps."""

import uuid

from saga_runtime.text import is_storable
from sagas.errors import SagaDefinitionError

NAMESPACE = uuid.UUID("5f0c6f0e-8f1d-5c0e-9f5e-3a5a6d1d6b0a")
"""The namespace of all sagas' ids; with another one, every saga would begin again."""
LONGEST_NAME = 255
"""Characters of the name of a saga or a step."""


def saga_id(saga_name: str, key: str) -> uuid.UUID:
    """Return the id of a saga: the same in every process for the same name and business key.

    Raises:
        SagaDefinitionError: the name holds `:`, and the id could be another saga's.
    """
    if ":" in saga_name:
        check_name(saga_name, where="the saga's name")
    return uuid.uuid5(NAMESPACE, f"{saga_name}:{key}")


def step_key(saga: uuid.UUID, step: str, kind: str) -> str:
    """Return the idempotency key of a step: the same for every attempt, worker and deploy."""
    return f"{saga}:{step}:{kind}"


def key_of_message(source: str, message_id: str) -> str:
    """Return the business key of a message whose trigger names no key.

    Sources hold colons. An id's own colons are escaped, so that the last colon parts the two, and
    no two messages share a key.
    """
    if ":" in message_id or "%" in message_id:
        message_id = message_id.replace("%", "%25").replace(":", "%3A")
    return f"{source}:{message_id}"


def check_name(name: object, *, where: str) -> None:
    """Refuse a saga's name that makes no safe id.

    Args:
        name: the name.
        where: the place of the name in the code, for the error's text.

    Raises:
        SagaDefinitionError: the name is no text of 1 to 255 characters, or holds `:`.
    """
    if not name or not is_storable(name, longest=LONGEST_NAME):
        raise SagaDefinitionError(
            f"{where} is {name!r:.80}: use a text of 1 to {LONGEST_NAME} characters, without NUL"
        )
    if ":" in str(name):
        raise SagaDefinitionError(
            f"{where} is {name!r}: leave out the ':'. A saga's id is made of its name, ':' and its "
            "business key, and two sagas must not share one"
        )
