"""Enqueue: take the key's lock, then the id, then insert, in that order.

Two messages with one key get ids in the order in which their transactions commit, because the
key's lock is held until the commit and the id is drawn under it. SQLite needs no such lock: its
transactions write one after the other.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection

from outbox.correlation import current
from outbox.errors import NotInTransaction, PayloadError
from outbox.murmur2 import murmur2

if TYPE_CHECKING:
    from outbox.models import OutboxMessage

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_HEADER = re.compile(r"[a-z0-9][a-z0-9_-]{0,127}")
_MAX_TEXT = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessage:
    """What `enqueue()` takes, for `enqueue_many()`."""

    topic: str
    key: str
    type: str
    payload: Any
    headers: Mapping[str, str] = field(default_factory=dict)


def enqueue(
    *, topic: str, key: str, type: str, payload: Any, headers: Mapping[str, str] | None = None
) -> "OutboxMessage":  # fmt: skip
    """Write a message into the outbox, in the caller's transaction.

    Args:
        topic: the broker's topic.
        key: messages with one key are published in the order of their commits.
        type: the CloudEvents type, such as `orders.place`.
        payload: anything JSON can hold; Decimals become strings.
        headers: further headers, lower case; `ce_…` is taken.

    Raises:
        NotInTransaction: there is no transaction to be part of.
        PayloadError: the message could not be sent as it is.
    """
    message = NewMessage(topic=topic, key=key, type=type, payload=payload, headers=headers or {})
    return enqueue_many([message])[0]


def enqueue_many(messages: Iterable[NewMessage]) -> "list[OutboxMessage]":
    """Write several messages, sorted by key; those of one key keep their order. Raises as
    `enqueue()` does, and then nothing is written."""
    if not connection.in_atomic_block:
        raise NotInTransaction
    rows = [_row(message) for message in sorted(messages, key=lambda m: m.key)]
    for row in rows:
        _insert(row)
    return rows


def _row(message: NewMessage) -> "OutboxMessage":
    from outbox.models import OutboxMessage

    _check(message)
    correlation = current()
    return OutboxMessage(
        topic=message.topic,
        key=message.key,
        key_hash=murmur2(message.key.encode()),
        type=message.type,
        payload=_encoded(message),
        headers=dict(message.headers),
        correlation_id=correlation.id,
        traceparent=correlation.traceparent,
    )


def _check(message: NewMessage) -> None:
    if not _TOPIC.fullmatch(message.topic):
        raise PayloadError(
            f"{message.topic!r} is no topic name: use letters, digits, '.', '_', '-'"
        )
    for name, text in (("key", message.key), ("type", message.type)):
        if not _is_storable(text) or not 0 < len(text) <= _MAX_TEXT:
            raise PayloadError(f"the {name} {text!r} must be 1 to 255 characters without NUL")
    for name, text in message.headers.items():
        if not _HEADER.fullmatch(name) or name.startswith("ce_") or not _is_storable(text):
            raise PayloadError(f"the header {name!r}: {text!r} cannot be sent")


def _is_storable(text: object) -> bool:
    return (
        isinstance(text, str)
        and "\0" not in text
        and not any("\ud800" <= char <= "\udfff" for char in text)
    )


def _encoded(message: NewMessage) -> bytes:
    try:
        return json.dumps(
            message.payload, cls=DjangoJSONEncoder, allow_nan=False, separators=(",", ":")
        ).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(f"the payload of {message.type} is not JSON: {error}") from error


def _insert(row: "OutboxMessage") -> None:
    if connection.vendor == "postgresql":
        _lock_and_insert(row)
    else:
        row.save(force_insert=True)


def _lock_and_insert(row: "OutboxMessage") -> None:
    """Hold the key until the transaction ends, then draw the id and insert: two statements, which
    PostgreSQL runs one after the other, in one round trip. One statement would not do: nothing says
    that an expression in it runs before `nextval`."""
    fields = [field for field in row._meta.local_concrete_fields if not field.primary_key]  # noqa: SLF001
    values = [field.get_db_prep_save(field.pre_save(row, add=True), connection) for field in fields]
    with connection.cursor() as cursor:
        cursor.execute(_lock_and_insert_sql(), [_LOCK_SPACE | row.key_hash, *values])
        cursor.cursor.nextset()
        (row.id,) = cursor.fetchone()
    row._state.adding = False  # noqa: SLF001
    row._state.db = connection.alias  # noqa: SLF001


@cache
def _lock_and_insert_sql() -> str:
    from outbox.models import OutboxMessage

    meta = OutboxMessage._meta  # noqa: SLF001
    columns = [field.column for field in meta.local_concrete_fields if not field.primary_key]
    names = ", ".join(f'"{column}"' for column in columns)
    places = ", ".join(["%s"] * len(columns))
    insert = f'INSERT INTO "{meta.db_table}" ({names}) VALUES ({places}) RETURNING "id"'  # noqa: S608
    return f"SELECT pg_advisory_xact_lock(%s); {insert}"


_LOCK_SPACE = 0x6F7574 << 32  # "out": keeps clear of other users of advisory locks
