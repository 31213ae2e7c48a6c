"""Start sagas in the database alone, without a message and a broker."""

import uuid
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from saga_runtime.correlation import current, taken_or_made
from saga_runtime.text import is_storable
from sagas.definition.discovery import AnySaga, registered_type
from sagas.definition.saga_types import SagaType
from sagas.journal import codec
from sagas.journal.new_sagas import insert_sagas, new_saga
from sagas.models import Saga

LONGEST_KEY = 255


def start(saga: AnySaga, context: Mapping[str, Any], *, key: str | None = None) -> UUID:
    """Start a saga with the caller's transaction; a worker runs the saga after the commit.

    Where the transaction is rolled back there is no saga. An existing saga with the same name and
    key is not begun again, whatever the context. The worker is `manage.py run_saga_worker`, or a
    consumer; one that is idle looks twice a second.

    Args:
        saga: a registered class. An instance stands for the class: workers make new instances.
        context: the first context, of values that the journal can keep.
        key: the business key, a text of 1 to 255 characters; by default random.

    Returns:
        The saga's id.

    Raises:
        SagaDefinitionError: the class is not registered.
        UnstorableValue: the journal cannot keep the context.
        ValueError: the key is none.
    """
    row = saga_row(registered_type(saga), context, str(uuid.uuid4()) if key is None else key)
    insert_sagas([row])
    return row.id


def saga_row(found: SagaType, context: Mapping[str, Any], key: str) -> Saga:
    """Build a new saga's row.

    Raises:
        ValueError: the key cannot be stored.
        UnstorableValue: the journal cannot keep the context.
    """
    if not key or not is_storable(key, longest=LONGEST_KEY):
        raise ValueError(f"the key {key!r:.80} must be a text of 1 to 255 characters, without NUL")
    correlation = taken_or_made(id=current().id, traceparent=current().traceparent)
    return new_saga(found, key, context=codec.encode(dict(context)), correlation=correlation)
