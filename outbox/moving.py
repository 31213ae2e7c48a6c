"""Move messages between the outbox and the parked ones; their ids stay.

Callers open the transaction, and hold the locks of the keys. On PostgreSQL one statement does it
inside the database: a key may have 100,000 messages, and while rows went to and fro the transaction
would idle longer than it may.
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
# Settings of this transaction alone. No timeout: a move that has taken too long would take as long
# the next time; lock_timeout still ends a wait for a lock. No compiling: it takes half a second.
_WITHOUT_TIMEOUT = """
SELECT set_config('statement_timeout', '0', true), set_config('enable_seqscan', 'off', true),
    set_config('jit', 'off', true)
"""
# `gone` takes the keys' messages out of the outbox; `parked` stores them in the order of their ids,
# each with its own reason or, behind a refused one, with the common reason.
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
# `gone` takes the key's parked messages; the INSERT gives them back in the order of their ids.
_PUT_BACK = f"""
WITH gone AS (
    DELETE FROM outbox_parked WHERE lane = %s AND key = %s RETURNING id, {_COLUMNS}
)
INSERT INTO outbox_message (id, {_COLUMNS}) SELECT id, {_COLUMNS} FROM gone ORDER BY id
"""  # noqa: S608 - constants


def park(
    keys: Collection[str], *, lanes: Collection[int], reasons: Mapping[int, str]
) -> Counter[str]:
    """Park all messages of these keys.

    Args:
        keys: whose locks the caller holds.
        lanes: the lanes of these keys.
        reasons: by message id, why the broker has refused the message; the rest wait behind.

    Returns:
        By key, how many messages are parked now.
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
        cursor.execute(_WITHOUT_TIMEOUT)
        cursor.execute(_PARK, parameters)
        return Counter(dict(cursor.fetchall()))


def put_back(key: str) -> int:
    """Put all parked messages of a key back into the outbox.

    Returns:
        How many.
    """
    lane = lane_of(key)
    if connection.vendor != "postgresql":
        return _put_back_by_rows(key, lane)
    with connection.cursor() as cursor:
        cursor.execute(_WITHOUT_TIMEOUT)
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
