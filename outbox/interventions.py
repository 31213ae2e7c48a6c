"""What a person may do about parked messages, each recorded with who, why and when.

Whatever is done, the key goes on: what is parked of it is put back into the outbox with its
original ids, under the key's lock, so that its order is what it always was.
"""

import json
from collections import Counter
from contextlib import suppress
from typing import Any

from django.db import transaction

from outbox import moving, parked
from outbox.errors import OutboxError
from outbox.messages import check_topic
from outbox.models import ParkedIntervention, ParkedMessage
from outbox.parked import NotParked
from outbox.waking import wake_with_commit
from saga_runtime.interventions import By
from saga_runtime.strict_json import UnreadableJSON, read_json


class BadEdit(OutboxError):  # noqa: N818 - states the fact
    """What a message is to become cannot be sent."""


def retry(reference: str, *, by: By) -> int:
    """Put a key's parked messages back; returns how many.

    Args:
        reference: the key, or the id of one of its messages.

    Raises:
        NotParked: it is neither.
        Ambiguous: it is both, of different keys.
    """
    with transaction.atomic():
        return _retry(parked.by_reference(reference), by)


def retry_key(key: str, *, by: By) -> int:
    """The same, where the key is known to be one."""
    with transaction.atomic():
        return _retry(parked.by_key(key), by)


def retry_message(message: int, *, by: By) -> int:
    """The same for the key of the message with this id."""
    with transaction.atomic():
        return _retry(parked.by_id(message), by)


def retry_many(*, topic: str | None = None, by: By) -> Counter[str]:
    """Put back every key with a parked message of this topic, or all keys; returns how many
    messages of which key. Each key is a transaction and an intervention of its own."""
    put_back: Counter[str] = Counter()
    for key in parked.keys(topic=topic):
        with suppress(NotParked):  # somebody else was faster
            put_back[key] = retry_key(key, by=by)
    return put_back


def edit(
    message: int, *, payload: bytes | None = None, topic: str | None = None, by: By
) -> int:  # fmt: skip
    """Change what a parked message says or where it goes, and put its key back; returns how many
    messages that were.

    Args:
        payload: JSON in UTF-8.

    Raises:
        BadEdit: the payload is no such thing, or nothing is changed.
        PayloadError: no topic can have this name.
    """
    if payload is None and topic is None:
        raise BadEdit("say what is to change: the payload or the topic")
    if topic is not None:
        check_topic(topic)
    with transaction.atomic():
        found = parked.by_id(message)
        _record(found, "edit", by)
        if payload is not None:
            found.payload = _json(payload)
        if topic is not None:
            found.topic = topic
        found.save(update_fields=["payload", "topic"])
        return _put_back(found.key)


def skip(message: int, *, by: By) -> int:
    """Never send a parked message, and put the others of its key back; returns how many."""
    with transaction.atomic():
        found = parked.by_id(message)
        _record(found, "skip", by)
        key = found.key
        found.delete()
        return _put_back(key)


def _retry(found: ParkedMessage, by: By) -> int:
    _record(found, "retry", by)
    return _put_back(found.key)


def _put_back(key: str) -> int:
    count = moving.put_back(key)
    wake_with_commit()
    return count


def _record(message: ParkedMessage, action: str, by: By) -> None:
    is_lost = action != "retry"
    ParkedIntervention.objects.create(
        message=message.id,
        key=message.key,
        action=action,
        who=by.who[:255],
        why=by.why,
        payload_before=bytes(message.payload) if is_lost else None,
        before=_described(message) if is_lost else None,
    )


def _described(message: ParkedMessage) -> dict[str, Any]:
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


def _json(payload: bytes) -> bytes:
    try:
        document = read_json(payload)
        return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    except UnreadableJSON as error:
        raise BadEdit(f"the payload {error}") from error
    except ValueError as error:  # a number as large as 1e400 is read as infinity
        raise BadEdit(f"the payload is not JSON: {error}") from error
