"""What a person may do about parked messages, each recorded with who, why and when.

Whatever is done, the key goes on: what is parked of it is put back into the outbox with its
original ids, under the key's lock, so that its order is what it always was.
"""

import json
from contextlib import suppress
from dataclasses import dataclass

from django.db import transaction

from outbox.errors import OutboxError
from outbox.keys import lock_key
from outbox.models import Envelope, OutboxMessage, ParkedIntervention, ParkedMessage
from outbox.waking import wake_with_commit

_ENVELOPE = [field.name for field in Envelope._meta.fields if not field.generated]  # noqa: SLF001


class NotParked(OutboxError):  # noqa: N818 - states the fact
    """There is no such parked message."""


class BadEdit(OutboxError):  # noqa: N818 - states the fact
    """What a message is to become cannot be sent."""


@dataclass(frozen=True, slots=True)
class By:
    """Who intervenes, and why."""

    who: str
    why: str


def retry(reference: str, *, by: By) -> int:
    """Put a key's parked messages back; returns how many.

    Args:
        reference: the key, or the id of one of its messages.
    """
    with transaction.atomic():
        first = _locked(reference)
        _record(first, "retry", by, before=None)
        return _put_back(first.key)


def edit(
    message: int, *, payload: str | None = None, topic: str | None = None, by: By
) -> int:  # fmt: skip
    """Change what a parked message says or where it goes, and put its key back; returns how many
    messages that were.

    Raises:
        BadEdit: the payload is not JSON, or nothing is changed.
    """
    if payload is None and topic is None:
        raise BadEdit("say what is to change: the payload or the topic")
    with transaction.atomic():
        found = _locked(str(message), exactly=True)
        _record(found, "edit", by, before=bytes(found.payload))
        if payload is not None:
            found.payload = _json(payload)
        if topic is not None:
            found.topic = topic
        found.save(update_fields=["payload", "topic"])
        return _put_back(found.key)


def skip(message: int, *, by: By) -> int:
    """Never send a parked message, and put the others of its key back; returns how many."""
    with transaction.atomic():
        found = _locked(str(message), exactly=True)
        _record(found, "skip", by, before=bytes(found.payload))
        key = found.key
        found.delete()
        return _put_back(key)


def _locked(reference: str, *, exactly: bool = False) -> ParkedMessage:
    """The message with this id, or the first with this key, with its key's lock held."""
    found = None
    with suppress(ValueError):
        found = ParkedMessage.objects.filter(id=int(reference)).first()
    if found is None and not exactly:
        found = ParkedMessage.objects.filter(key=reference).order_by("id").first()
    if found is None:
        raise NotParked(f"there is no parked message {reference}")
    lock_key(found.key_hash)
    again = ParkedMessage.objects.filter(id=found.id).first()
    if again is None:
        raise NotParked(f"{reference} is no longer parked")
    return again


def _put_back(key: str) -> int:
    parked = list(ParkedMessage.objects.filter(key=key).order_by("id"))
    OutboxMessage.objects.bulk_create(
        OutboxMessage(id=row.id, **{name: getattr(row, name) for name in _ENVELOPE})
        for row in parked
    )
    ParkedMessage.objects.filter(id__in=[row.id for row in parked]).delete()
    wake_with_commit()
    return len(parked)


def _record(message: ParkedMessage, action: str, by: By, *, before: bytes | None) -> None:
    ParkedIntervention.objects.create(
        message=message.id,
        key=message.key,
        action=action,
        who=by.who[:255],
        why=by.why,
        payload_before=before,
    )


def _json(payload: str) -> bytes:
    try:
        return json.dumps(json.loads(payload), separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise BadEdit(f"the payload is not JSON: {error}") from error
