"""Enqueue messages: take the key's lock, then draw the id, then insert, in this order.

Two messages with one key get ids in the order in which their transactions commit, because the
key's lock is held until the commit and the id is drawn under it. SQLite needs no such lock: its
transactions write one after the other.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection
from django.db.models import Model

from outbox.commit_hook import commit_hook
from outbox.errors import NotInTransaction, PayloadError
from outbox.inserting import check_rows, insert
from outbox.keys import lock_number
from outbox.murmur2 import murmur2
from saga_runtime.correlation import current
from saga_runtime.headers import is_reserved
from saga_runtime.nesting import DEEPEST, is_too_deep
from saga_runtime.strict_json import name_twice
from saga_runtime.text import is_storable

if TYPE_CHECKING:
    from outbox.models import OutboxMessage

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_HEADER = re.compile(r"[a-z0-9][a-z0-9_-]{0,127}")
_MAX_TEXT = 255
_ENCODER = DjangoJSONEncoder(allow_nan=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessage:
    """Describe a message for `enqueue_many()`; the fields are the arguments of `enqueue()`."""

    topic: str
    key: str
    type: str
    payload: Any
    headers: Mapping[str, str] = field(default_factory=dict)


def enqueue(
    *,
    topic: str,
    key: str,
    type: str,
    payload: Any,
    headers: Mapping[str, str] | None = None,
    insert_first: Sequence[Model] = (),
) -> "OutboxMessage":
    """Write a message into the outbox, in the caller's transaction.

    Args:
        topic: the broker's topic.
        key: messages with one key are published in the order of their commits.
        type: the CloudEvents type, such as `orders.place`.
        payload: anything JSON can hold; Decimals become strings.
        headers: further headers, in lower case; the names in `saga_runtime.headers` are taken.
        insert_first: new rows, inserted before the message in this order,
            as `bulk_create()` does: no signals, and no `save()` of the model's own. On PostgreSQL
            they go in the same round trip, as far as they are plain values.

    Returns:
        The message's row.

    Raises:
        NotInTransaction: there is no transaction to be part of.
        PayloadError: the message could not be sent.
        RowError: one of the rows cannot be inserted like this.
        TooManyKeys: the transaction has enqueued under as many keys as allowed.
    """
    _check_transaction()
    row = _message_row(
        NewMessage(topic=topic, key=key, type=type, payload=payload, headers=headers or {})
    )
    check_rows(insert_first)
    commit_hook().add(row.key_hash)
    insert(*insert_first, row, lock=lock_number(row.key_hash))
    return row


def enqueue_many(messages: Iterable[NewMessage]) -> "list[OutboxMessage]":
    """Write several messages, sorted by key; messages of one key keep their order.

    Args:
        messages: all are checked before the first is written.

    Returns:
        The messages' rows, in the order of their ids.

    Raises:
        NotInTransaction: there is no transaction to be part of.
        PayloadError: a message could not be sent.
        TooManyKeys: the transaction would enqueue under more keys than allowed.
    """
    _check_transaction()
    # One order for all transactions: with two, they would wait for each other's keys.
    rows = [_message_row(message) for message in sorted(messages, key=lambda m: m.key)]
    if rows:
        commit_hook().add(*(row.key_hash for row in rows))
    for row in rows:
        insert(row, lock=lock_number(row.key_hash))
    return rows


def check_topic(topic: str) -> None:
    """Refuse a name that no topic can have.

    Raises:
        PayloadError: the name is too long, empty, or has other characters than Kafka allows.
    """
    if not _TOPIC.fullmatch(topic):
        raise PayloadError(
            f"{topic!r} is no topic name: use up to 249 letters, digits, '.', '_', '-'"
        )


def _check_transaction() -> None:
    if not connection.in_atomic_block:
        raise NotInTransaction


def _message_row(message: NewMessage) -> "OutboxMessage":
    """Build a message's row, under the correlation of the current request or message."""
    from outbox.models import OutboxMessage

    _check_message(message)
    correlation = current()
    return OutboxMessage(
        topic=message.topic,
        key=message.key,
        key_hash=murmur2(message.key.encode()),
        type=message.type,
        payload=_encode_payload(message),
        headers=dict(message.headers),
        correlation_id=correlation.id,
        traceparent=correlation.traceparent,
    )


def _check_message(message: NewMessage) -> None:
    check_topic(message.topic)
    for name, text in (("key", message.key), ("type", message.type)):
        if not is_storable(text) or not 0 < len(text) <= _MAX_TEXT:
            raise PayloadError(f"the {name} {text!r} must be 1 to 255 characters without NUL")
    for name, text in message.headers.items():
        if not is_storable(name) or not _HEADER.fullmatch(name) or not is_storable(text):
            raise PayloadError(f"the header {name!r}: {text!r} cannot be sent")
        if is_reserved(name):
            raise PayloadError(f"the header {name!r} is set by the outbox itself: leave it out")


def _encode_payload(message: NewMessage) -> bytes:
    """Encode the payload as the exact bytes to be sent."""
    try:
        text = _ENCODER.encode(message.payload)
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(f"the payload of {message.type} is not JSON: {error}") from error
    if is_too_deep(message.payload, text=text):
        raise PayloadError(
            f"the payload of {message.type} is nested too deeply: more than {DEEPEST} levels"
        )
    if (name := name_twice(message.payload)) is not None:
        raise PayloadError(
            f"the payload of {message.type} has the name {name!r} twice in an object"
        )
    return text.encode()
