"""Ask how much the outbox holds, and for how long."""

from datetime import timedelta

from django.db import connection
from django.utils import timezone

from outbox.models import LANES, OutboxMessage

# The first message of each lane, read along the lane's index: to sort a whole backlog by id would
# take seconds.
_OLDEST = f"""
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
    set_config('enable_sort', 'off', true);
SELECT min(created_at) FROM generate_series(0, {LANES} - 1) AS held (lane)
CROSS JOIN LATERAL (
    SELECT created_at FROM outbox_message WHERE lane = held.lane ORDER BY id LIMIT 1
) AS first
"""  # noqa: S608 - constants
_SEGMENTS = "FROM pg_inherits WHERE inhparent = 'outbox_message'::regclass"


def oldest_age() -> timedelta:
    """Return how long the oldest unpublished message has waited; zero where there is none.

    On PostgreSQL only the first message of each lane is looked at.
    """
    if connection.vendor != "postgresql":
        first = OutboxMessage.objects.order_by("id").values_list("created_at", flat=True).first()
    else:
        with connection.cursor() as cursor:
            cursor.execute(_OLDEST)
            cursor.cursor.nextset()
            (first,) = cursor.fetchone()
    return timezone.now() - first if first else timedelta()


def estimated_count() -> int:
    """Estimate how many messages wait.

    On PostgreSQL from the statistics, which lag by some seconds, and err by what was reported after
    a segment was emptied. An exact count would take seconds on a backlog, and keep segments from
    being emptied.
    """
    if connection.vendor != "postgresql":
        return OutboxMessage.objects.count()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT coalesce(sum(pg_stat_get_live_tuples(inhrelid)), 0) {_SEGMENTS}")
        return int(cursor.fetchone()[0])


def table_bytes() -> int | None:
    """Return the table's size, with deleted rows not yet freed; None on SQLite."""
    if connection.vendor != "postgresql":
        return None
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT coalesce(sum(pg_relation_size(inhrelid)), 0) {_SEGMENTS}")
        return int(cursor.fetchone()[0])
