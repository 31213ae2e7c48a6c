"""Let a person retry, edit or skip parked messages, each time recorded with who, why and when.

Whatever is done, the key goes on: its parked messages are put back into the outbox with their
original ids, under the key's lock, and so in their old order.
"""

import json
from collections import Counter
from contextlib import suppress
from typing import Any

from django.db import transaction

from outbox import moving, parked_lookup
from outbox.errors import OutboxError
from outbox.messages import check_topic
from outbox.models import ParkedIntervention, ParkedMessage
from outbox.parked_lookup import NotParked
from outbox.waking import wake_with_commit
from saga_runtime.interventions import By
from saga_runtime.strict_json import UnreadableJSON, read_json


class BadEdit(OutboxError):  # noqa: N818 - states the fact
    """Raised when an edit changes nothing, or its result could not be sent."""


def retry(reference: str, *, by: By) -> int:
    """Put a key's parked messages back.

    Args:
        reference: the key, or the id of one of its messages.
        by: who, and why.

    Returns:
        How many messages are back in the outbox.

    Raises:
        NotParked: no parked message has this key or id.
        Ambiguous: the reference is a key, and also the id of another key's message.
    """
    with transaction.atomic():
        return _retry(parked_lookup.by_reference(reference), by)


def retry_key(key: str, *, by: By) -> int:
    """Put the parked messages of a key back, as `retry()` does.

    Raises:
        NotParked: the key has no parked message.
    """
    with transaction.atomic():
        return _retry(parked_lookup.by_key(key), by)


def retry_message(message: int, *, by: By) -> int:
    """Put back the key of the message with this id, as `retry()` does.

    Raises:
        NotParked: no parked message has this id.
    """
    with transaction.atomic():
        return _retry(parked_lookup.by_id(message), by)


def retry_many(*, topic: str | None = None, by: By) -> Counter[str]:
    """Put back every key with a parked message, one transaction and intervention per key.

    Args:
        topic: only keys with a parked message of this topic; None for all keys.
        by: who, and why.

    Returns:
        By key, how many messages are back in the outbox.
    """
    put_back: Counter[str] = Counter()
    for key in parked_lookup.keys(topic=topic):
        with suppress(NotParked):  # somebody else was faster
            put_back[key] = retry_key(key, by=by)
    return put_back


def edit(
    message: int, *, payload: bytes | None = None, topic: str | None = None, by: By
) -> int:  # fmt: skip
    """Change a parked message's payload or topic, and put its key back.

    Args:
        message: its id.
        payload: JSON in UTF-8; None leaves the payload.
        topic: the new topic; None leaves the topic.
        by: who, and why.

    Returns:
        How many messages are back in the outbox.

    Raises:
        BadEdit: the payload is not JSON, or neither payload nor topic is given.
        NotParked: no parked message has this id.
        PayloadError: no topic can have this name.
    """
    if payload is None and topic is None:
        raise BadEdit("say what is to change: the payload or the topic")
    if topic is not None:
        check_topic(topic)
    with transaction.atomic():
        found = parked_lookup.by_id(message)
        _record_intervention(found, "edit", by)
        if payload is not None:
            found.payload = _compact_json(payload)
        if topic is not None:
            found.topic = topic
        found.save(update_fields=["payload", "topic"])
        return _put_back(found.key)


def skip(message: int, *, by: By) -> int:
    """Drop a parked message for good, and put back the rest of its key.

    Args:
        message: its id.
        by: who, and why.

    Returns:
        How many messages are back in the outbox.

    Raises:
        NotParked: no parked message has this id.
    """
    with transaction.atomic():
        found = parked_lookup.by_id(message)
        _record_intervention(found, "skip", by)
        key = found.key
        found.delete()
        return _put_back(key)


def _retry(found: ParkedMessage, by: By) -> int:
    _record_intervention(found, "retry", by)
    return _put_back(found.key)


def _put_back(key: str) -> int:
    count = moving.put_back(key)
    wake_with_commit()
    return count


def _record_intervention(message: ParkedMessage, action: str, by: By) -> None:
    is_lost = action != "retry"  # then the intervention keeps a copy of the message
    ParkedIntervention.objects.create(
        message=message.id,
        key=message.key,
        action=action,
        who=by.who[:255],
        why=by.why,
        payload_before=bytes(message.payload) if is_lost else None,
        before=_fields_lost(message) if is_lost else None,
    )


def _fields_lost(message: ParkedMessage) -> dict[str, Any]:
    return {
        "topic": message.topic,
        "type": message.type,
        "headers": message.headers,
        "ce_id": str(message.message_id),
        "correlation_id": message.correlation_id,
        "traceparent": message.traceparent,
        "created_at": message.created_at.isoformat(),
        "reason": message.reason,
    }


def _compact_json(payload: bytes) -> bytes:
    try:
        document = read_json(payload)
        return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    except UnreadableJSON as error:
        raise BadEdit(f"the payload {error}") from error
    except ValueError as error:  # a number as large as 1e400 is read as infinity
        raise BadEdit(f"the payload is not JSON: {error}") from error
