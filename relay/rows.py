"""What the relay reads from the outbox's tables and does to them.

Rows are read from a lane's head each time: a cursor would step over rows that commit late.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.db import connection, transaction

from outbox.keys import try_lock_key
from outbox.models import LANES, Envelope, OutboxMessage, ParkedMessage
from outbox.murmur2 import murmur2

_ENVELOPE = [field.name for field in Envelope._meta.fields if not field.generated]  # noqa: SLF001


class Row(NamedTuple):
    """A message in the outbox. `headers`: as JSON."""

    id: int
    lane: int
    segment: int
    message_id: str
    topic: str
    key: str
    type: str
    payload: bytes
    headers: str
    correlation_id: str
    traceparent: str
    created_at: datetime


def head(
    lanes: Sequence[int], *, limit: int, besides: Collection[int], lane_limit: int | None = None
) -> list[Row]:
    """The first rows of these lanes, each lane's by id, without those in flight.

    Args:
        lanes: in the order in which they are served.
        limit, lane_limit: rows of all, and of each of them.
    """
    if connection.vendor == "postgresql":
        return _head_of_lanes(lanes, limit, besides, lane_limit or limit)
    rows = OutboxMessage.objects.order_by("id")
    if len(lanes) < LANES:
        rows = rows.filter(lane__in=lanes)
    return _rows((rows.exclude(id__in=besides) if besides else rows)[:limit])


def first_of(ids: Collection[int], lanes: Collection[int]) -> Row | None:
    """The first of these rows that is still in the outbox."""
    if connection.vendor == "postgresql":
        return _first_in_lanes(ids, lanes)
    found = OutboxMessage.objects.filter(id__in=ids).order_by("id")[:1]
    return next(iter(_rows(found)), None)


def any_left() -> bool:
    return OutboxMessage.objects.exists()


def delete(rows: Collection[Row], epochs: Mapping[int, int], owner: str) -> None:
    """Delete what the broker has acknowledged, as far as the lanes are still this relay's."""
    if connection.vendor == "postgresql":
        _delete_held(rows, epochs, owner)
    else:
        OutboxMessage.objects.filter(id__in=[row.id for row in rows]).delete()


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
) -> int:
    """Move every outbox row of these keys to the parked messages, in order; returns how many.

    Args:
        keys: each with its lane; those whose lane is not this relay's any more are left alone, and
            so are those with neither a refused message nor a parked one to wait behind.
        reasons: by id, why the broker has refused a message.
    """
    with transaction.atomic():
        lanes = _locked(set(keys.values()), epochs, owner)
        # Whoever puts the key back holds its lock: then it is left for the next time.
        held = [
            key
            for key, lane in keys.items()
            if lane in lanes and try_lock_key(murmur2(key.encode()))
        ]
        found = list(OutboxMessage.objects.filter(key__in=held, lane__in=lanes).order_by("id"))
        refused = {row.key for row in found if row.id in reasons}
        behind = refused | still_parked(set(held) - refused)
        rows = [row for row in found if row.key in behind]
        ParkedMessage.objects.bulk_create(_parked(row, reasons) for row in rows)
        OutboxMessage.objects.filter(id__in=[row.id for row in rows], lane__in=lanes).delete()
    return len(rows)


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


# Planned while the table was empty, a query would turn to sequential scans on a backlog. SET LOCAL,
# because a plain SET would leak to other clients behind a pooler. Sent as one text with the
# statement, it is one transaction and one round trip.
_PLAN = """
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
    set_config('enable_sort', 'off', true), set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true);
"""
_COLUMNS = """m.id, m.lane, m.segment, m.message_id::text, m.topic, m.key, m.type, m.payload,
    m.headers::text, m.correlation_id, m.traceparent, m.created_at"""
_HEAD = f"""{_PLAN}
SELECT {_COLUMNS} FROM unnest(%s::int[]) AS held (lane)
CROSS JOIN LATERAL (
    SELECT * FROM outbox_message
    WHERE lane = held.lane AND id <> ALL (%s::bigint[])
    ORDER BY id LIMIT %s
) AS m
LIMIT %s
"""  # noqa: S608 - constants
_DELETE = f"""{_PLAN}
DELETE FROM outbox_message AS m
USING unnest(%s::int[], %s::bigint[], %s::smallint[], %s::bigint[]) AS d (lane, id, segment, epoch),
    outbox_lane AS l
WHERE l.lane = d.lane AND l.owner = %s AND l.epoch = d.epoch
    AND m.lane = d.lane AND m.id = d.id AND m.segment = d.segment
"""  # noqa: S608 - constants


def _head_of_lanes(
    lanes: Sequence[int], limit: int, besides: Collection[int], lane_limit: int
) -> list[Row]:
    with connection.cursor() as cursor:
        cursor.execute(_HEAD, [_array(lanes), _array(besides), lane_limit, limit])
        cursor.cursor.nextset()
        return [*map(Row._make, cursor.cursor.fetchall())]


def _first_in_lanes(ids: Collection[int], lanes: Collection[int]) -> Row | None:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {_COLUMNS} FROM outbox_message AS m"  # noqa: S608 - constants
            " WHERE m.lane = ANY (%s::int[]) AND m.id = ANY (%s::bigint[]) ORDER BY m.id LIMIT 1",
            [_array(lanes), _array(ids)],
        )
        found = cursor.fetchone()
    return Row._make(found) if found else None


def _delete_held(rows: Collection[Row], epochs: Mapping[int, int], owner: str) -> None:
    params = [
        _array(row.lane for row in rows),
        _array(row.id for row in rows),
        _array(row.segment for row in rows),
        _array(epochs.get(row.lane, -1) for row in rows),
        owner,
    ]
    with connection.cursor() as cursor:
        cursor.execute(_DELETE, params)


def _array(numbers: Iterable[int]) -> str:
    """An array as one parameter's text."""
    return f"{{{','.join(map(str, numbers))}}}"


def _rows(messages: Any) -> list[Row]:
    """The same through the ORM, which knows no segments."""
    return [
        Row(
            message.id,
            message.lane,
            0,
            str(message.message_id),
            message.topic,
            message.key,
            message.type,
            bytes(message.payload),
            _json(message.headers),
            message.correlation_id,
            message.traceparent,
            message.created_at,
        )
        for message in messages
    ]


def _json(headers: Mapping[str, str]) -> str:

    return json.dumps(headers) if headers else "{}"


def _parked(row: OutboxMessage, reasons: Mapping[int, str]) -> ParkedMessage:
    reason = reasons.get(row.id, "waits behind a parked message of its key")
    return ParkedMessage(
        id=row.id, reason=reason, **{name: getattr(row, name) for name in _ENVELOPE}
    )
