"""Find parked messages as people name them, and take their key's lock."""

from django.db.models import Min

from outbox.errors import OutboxError
from outbox.keys import lock_key
from outbox.lanes import lane_of
from outbox.models import ParkedMessage

_MAX_DIGITS = 19


class NotParked(OutboxError):  # noqa: N818 - states the fact
    """Raised when there is no such parked message."""


class Ambiguous(OutboxError):  # noqa: N818 - states the fact
    """Raised when a reference is the id of a message, and also the key of others."""


def by_reference(reference: str) -> ParkedMessage:
    """Find a message by its key or its id.

    Args:
        reference: a key, or the id of a message.

    Returns:
        The first message of the key, or the message with the id; its key is locked.

    Raises:
        NotParked: no parked message has this key or id.
        Ambiguous: the reference is a key, and also the id of another key's message.
    """
    of_key = _first(reference)
    with_id = _with_id(int(reference)) if _is_number(reference) else None
    if of_key and with_id and of_key.key != with_id.key:
        raise Ambiguous(
            f"{reference} is a key, and also a message of key {with_id.key}: "
            f"say --key {reference} or --message {reference}"
        )
    return _locked(with_id or of_key, f"message {reference}")


def by_key(key: str) -> ParkedMessage:
    """Find the first parked message of a key, and lock the key.

    Raises:
        NotParked: the key has no parked message.
    """
    return _locked(_first(key), f"message of key {key}")


def keys(*, topic: str | None = None) -> list[str]:
    """List the keys with a parked message, the longest parked first.

    Args:
        topic: only keys with a message of this topic; None for all.
    """
    found = ParkedMessage.objects.order_by().values("key").annotate(first=Min("id"))
    if topic is not None:
        found = found.filter(topic=topic)
    return [*found.order_by("first").values_list("key", flat=True)]


def by_id(message: int) -> ParkedMessage:
    """Find a parked message by its id, and lock its key.

    Raises:
        NotParked: no parked message has this id.
    """
    return _locked(_with_id(message), f"message {message}")


def _locked(found: ParkedMessage | None, name: str) -> ParkedMessage:
    """Lock the message's key and read the message again: it may be gone meanwhile."""
    if found is None:
        raise NotParked(f"there is no parked {name}")
    lock_key(found.key_hash)
    again = _with_id(found.id)
    if again is None:
        raise NotParked(f"{name} is no longer parked")
    return again


def _first(key: str) -> ParkedMessage | None:
    """Find the first parked message of a key, without a lock."""
    return ParkedMessage.objects.filter(lane=lane_of(key), key=key).order_by("id").first()


def _with_id(message: int) -> ParkedMessage | None:
    return ParkedMessage.objects.filter(id=message).first()


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
