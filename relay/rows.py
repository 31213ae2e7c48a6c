"""What the relay reads from the outbox's tables and does to them.

Rows are read from a lane's head each time: a cursor would step over rows that commit late.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC
from functools import partial
from typing import Any, NamedTuple

from django.db import connection, transaction

from outbox import moving
from outbox.keys import MOST_KEYS, try_lock_keys
from outbox.models import LANES, OutboxMessage, ParkedMessage
from outbox.murmur2 import murmur2
from relay import postgres


class Row(NamedTuple):
    """A message in the outbox, what becomes a header as the bytes that it is on the wire.

    `headers`: as JSON. `created_at`: ISO 8601 in UTC, without the zone, with a space for the T.
    """

    id: int
    lane: int
    segment: int
    topic: str
    key: str
    payload: bytes
    headers: str
    message_id: bytes
    type: bytes
    correlation_id: bytes
    traceparent: bytes
    created_at: bytes


_new_row: Callable[[tuple[Any, ...]], Row] = partial(tuple.__new__, Row)
"""`Row._make`, three times as fast."""


def head(
    lanes: Sequence[int],
    *,
    epochs: Mapping[int, int],
    owner: str,
    limit: int,
    besides: Collection[Row],
    lane_limit: int | None = None,
) -> Callable[[], list[Row]]:
    """Ask for the first rows of these lanes, each lane's by id, without those in flight.

    Args:
        lanes: in the order in which they are served.
        epochs: of the relay's lanes; of one that is no longer `owner`'s under it, nothing is read.
        limit, lane_limit: rows of all, and of each of them.

    Returns:
        what waits for the answer. PostgreSQL reads meanwhile, and the connection is for nothing
        else.
    """
    if connection.vendor == "postgresql":
        answer = postgres.head(
            lanes,
            busy={row.lane for row in besides},
            besides=[row.id for row in besides],
            epochs=epochs,
            owner=owner,
            limit=limit,
            lane_limit=lane_limit or limit,
        )
        return lambda: [*map(_new_row, answer())]
    rows = OutboxMessage.objects.order_by("id")
    if len(lanes) < LANES:
        rows = rows.filter(lane__in=lanes)
    rows = rows.exclude(id__in=[row.id for row in besides]) if besides else rows
    return lambda: _rows(rows[:limit])


def first_of(ids: Collection[int], epochs: Mapping[int, int], owner: str) -> Row | None:
    """The first of these rows that is still in the outbox, and in a lane that is still this
    relay's."""
    if connection.vendor == "postgresql":
        return next(map(_new_row, postgres.first_of(ids, epochs, owner)), None)
    found = OutboxMessage.objects.filter(id__in=ids).order_by("id")[:1]
    return next(iter(_rows(found)), None)


def any_left() -> bool:
    return OutboxMessage.objects.exists()


def delete(rows: Collection[Row], epochs: Mapping[int, int], owner: str) -> None:
    """Delete what the broker has acknowledged, as far as the lanes are still this relay's."""
    if connection.vendor == "postgresql":
        postgres.delete(rows, epochs, owner)
    else:
        OutboxMessage.objects.filter(id__in=[row.id for row in rows]).delete()


def delete_nothing(owner: str) -> None:
    """Raises what every delete would raise, such as for want of a right."""
    if connection.vendor == "postgresql":
        postgres.delete((), {}, owner)


def parked_keys(lanes: Collection[int]) -> set[str]:
    """The keys in these lanes that have a parked message, behind which their others must wait."""
    keys = ParkedMessage.objects.order_by().filter(lane__in=lanes).values_list("key", flat=True)
    return set(keys.distinct())


def still_parked(keys: Collection[str]) -> set[str]:
    """Those of these keys that have a parked message now."""
    keys_now = ParkedMessage.objects.order_by().filter(key__in=keys, lane__in=range(LANES))
    return set(keys_now.values_list("key", flat=True).distinct())


def park(
    keys: Mapping[str, int],
    *,
    reasons: Mapping[int, str],
    epochs: Mapping[int, int],
    owner: str,
) -> Counter[str]:
    """Move every outbox row of these keys to the parked messages, in order; returns how many of
    which key.

    Args:
        keys: each with its lane; those whose lane is not this relay's any more are left alone, and
            so are those with neither a refused message nor a parked one to wait behind.
        reasons: by id, why the broker has refused a message.
    """
    parked: Counter[str] = Counter()
    named = [*keys.items()]
    for start in range(0, len(named), MOST_KEYS):
        some = dict(named[start : start + MOST_KEYS])
        parked += _park(some, reasons=reasons, epochs=epochs, owner=owner)
    return parked


def _park(
    keys: Mapping[str, int],
    *,
    reasons: Mapping[int, str],
    epochs: Mapping[int, int],
    owner: str,
) -> Counter[str]:
    """In one transaction, which holds the keys' locks."""
    with transaction.atomic():
        lanes = _locked(set(keys.values()), epochs, owner)
        # Whoever puts the key back holds its lock: then it is left for the next time.
        hashes = {key: murmur2(key.encode()) for key, lane in keys.items() if lane in lanes}
        locked = try_lock_keys(hashes.values())
        held = [key for key, key_hash in hashes.items() if key_hash in locked]
        found = OutboxMessage.objects.filter(id__in=[*reasons], key__in=held, lane__in=lanes)
        refused = set(found.values_list("key", flat=True))
        behind = refused | still_parked(set(held) - refused)
        return moving.park(behind, lanes=lanes, reasons=reasons)


def _locked(lanes: Collection[int], epochs: Mapping[int, int], owner: str) -> set[int]:
    """Those of the lanes that are still this relay's, and stay so until the commit."""
    if connection.vendor != "postgresql":
        return set(lanes)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT lane, epoch FROM outbox_lane WHERE owner = %s AND lane = ANY(%s)"
            " ORDER BY lane FOR SHARE",
            [owner, list(lanes)],
        )
        return {lane for lane, epoch in cursor.fetchall() if epochs.get(lane) == epoch}


def _rows(messages: Any) -> list[Row]:
    """The same through the ORM, which knows no segments."""
    return [
        Row(
            message.id,
            message.lane,
            0,
            message.topic,
            message.key,
            bytes(message.payload),
            json.dumps(message.headers) if message.headers else "{}",
            str(message.message_id).encode(),
            message.type.encode(),
            message.correlation_id.encode(),
            message.traceparent.encode(),
            message.created_at.astimezone(UTC).replace(tzinfo=None).isoformat(" ").encode(),
        )
        for message in messages
    ]
