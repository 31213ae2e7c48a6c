"""Moves messages between the outbox and the parked ones, with their ids, in the transaction of the
caller, who holds the locks of their keys.

On PostgreSQL the database does it by itself, in one statement: a key may have 100,000 messages, and
while their rows went to and fro the transaction would idle longer than it may.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from django.db import connection
from django.utils import timezone

from outbox.lanes import lane_of
from outbox.models import Envelope, OutboxMessage, ParkedMessage

WAITS = "waits behind a parked message of its key"

_ENVELOPE = [field.name for field in Envelope._meta.fields if not field.generated]  # noqa: SLF001
_COLUMNS = ", ".join(_ENVELOPE)
# For this transaction. A move that has taken too long would take as long the next time; what waits
# for a lock is ended all the same. Compiling would take half a second.
_PATIENT = """
SELECT set_config('statement_timeout', '0', true), set_config('enable_seqscan', 'off', true),
    set_config('jit', 'off', true)
"""
_PARK = f"""
WITH gone AS (
    DELETE FROM outbox_message WHERE lane = ANY (%s::int[]) AND key = ANY (%s)
    RETURNING id, {_COLUMNS}
), parked AS (
    INSERT INTO outbox_parked (id, {_COLUMNS}, reason, parked_at)
    SELECT id, {_COLUMNS}, coalesce(refused.reason, %s), %s
    FROM gone LEFT JOIN unnest(%s::bigint[], %s::text[]) AS refused (id, reason) USING (id)
    ORDER BY id
    RETURNING key
)
SELECT key, count(*) FROM parked GROUP BY key
"""  # noqa: S608 - constants
_PUT_BACK = f"""
WITH gone AS (
    DELETE FROM outbox_parked WHERE lane = %s AND key = %s RETURNING id, {_COLUMNS}
)
INSERT INTO outbox_message (id, {_COLUMNS}) SELECT id, {_COLUMNS} FROM gone ORDER BY id
"""  # noqa: S608 - constants


def park(
    keys: Collection[str], *, lanes: Collection[int], reasons: Mapping[int, str]
) -> Counter[str]:
    """Park all that these keys have in the outbox; returns how many of which key.

    Args:
        lanes: of these keys.
        reasons: by id, why the broker has refused a message; the others wait behind it.
    """
    if not keys:
        return Counter()
    if connection.vendor != "postgresql":
        return _park_by_rows(keys, lanes, reasons)
    parameters: list[Any] = [
        [*lanes],
        [*keys],
        WAITS,
        timezone.now(),
        [*reasons],
        [*reasons.values()],
    ]
    with connection.cursor() as cursor:
        cursor.execute(_PATIENT)
        cursor.execute(_PARK, parameters)
        return Counter(dict(cursor.fetchall()))


def put_back(key: str) -> int:
    """Put all that is parked of this key back into the outbox; returns how many."""
    lane = lane_of(key)
    if connection.vendor != "postgresql":
        return _put_back_by_rows(key, lane)
    with connection.cursor() as cursor:
        cursor.execute(_PATIENT)
        cursor.execute(_PUT_BACK, [lane, key])
        return int(cursor.rowcount)


def _park_by_rows(
    keys: Collection[str], lanes: Collection[int], reasons: Mapping[int, str]
) -> Counter[str]:
    rows = OutboxMessage.objects.filter(key__in=keys, lane__in=lanes)
    found = [*rows.order_by("id")]
    ParkedMessage.objects.bulk_create(
        ParkedMessage(id=row.id, reason=reasons.get(row.id, WAITS), **_envelope(row))
        for row in found
    )
    rows.delete()
    return Counter(row.key for row in found)


def _put_back_by_rows(key: str, lane: int) -> int:
    rows = ParkedMessage.objects.filter(lane=lane, key=key)
    found = [*rows.order_by("id")]
    OutboxMessage.objects.bulk_create(OutboxMessage(id=row.id, **_envelope(row)) for row in found)
    rows.delete()
    return len(found)


def _envelope(row: Envelope) -> dict[str, object]:
    return {name: getattr(row, name) for name in _ENVELOPE}
