"""Read and delete the outbox on PostgreSQL: by lane, over all segments together.

Invariant: every statement touches only lanes held by the relay as the statement begins.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, LiteralString

import psycopg
from django.db import connection
from psycopg.types.string import ByteaBinaryLoader

from relay.parking_store import ParkingStore
from relay.store import Row, row_of
from saga_runtime.round_trips import run_together

_POOL_SIZE = 4  # of a pool that is not told how large to be

# Planned while the table was empty, a query would turn to sequential scans on a backlog. SET LOCAL,
# because a plain SET would leak to other clients behind a pooler. Sent with the statement, in one
# transaction and one round trip. Where it must sort although that is off, it takes the query for so
# costly that it would compile it first, for half a second.
_PLAN = """
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
    set_config('enable_sort', 'off', true), set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true),
    set_config('DateStyle', 'ISO', true)
"""
# What is prepared: planning takes longer than deleting a few rows.
_PLAN_ONCE = "SELECT set_config('plan_cache_mode', 'force_generic_plan', true)"
# Each field of a row. Text comes as str; varchar is a sign to `_ask` that it shall come as bytes.
_EXPRESSIONS = {
    "id": "m.id",
    "lane": "m.lane",
    "segment": "m.segment",
    "topic": "m.topic::text",
    "key": "m.key::text",
    "payload": "m.payload",
    "headers": "m.headers::text",
    "message_id": "m.message_id::text::varchar",
    "type": "m.type::varchar",
    "correlation_id": "m.correlation_id::varchar",
    "traceparent": "m.traceparent::varchar",
    "created_at": "(m.created_at AT TIME ZONE 'UTC')::text::varchar",
}
_COLUMNS = ", ".join(_EXPRESSIONS[field] for field in Row._fields)
# The lanes that are this relay's, as the relay knows them, and still are.
_HELD = """
SELECT l.lane
FROM outbox_lane AS l JOIN unnest(%s::int[], %s::bigint[]) AS held (lane, epoch)
    ON l.lane = held.lane AND l.epoch = held.epoch
WHERE l.owner = %s
"""
# NOT IN (SELECT …) is one hash table for all; of <> ALL, every segment's planning and scan looks
# through the whole list. OFFSET 0 keeps it above the segments. The list stays a text, and nobody
# looks at it, while the lanes with nothing in flight are enough.
_HEAD = (
    f"""
SELECT {_COLUMNS} FROM unnest(%s::int[], %s::bool[]) AS wanted (lane, is_idle)
"""  # noqa: S608 - constants
    # One lane's first rows, merged from the segments' indexes.
    """CROSS JOIN LATERAL (
    SELECT * FROM (
        SELECT * FROM outbox_message WHERE lane = wanted.lane ORDER BY id OFFSET 0
    ) AS whole
    WHERE wanted.is_idle OR id NOT IN (SELECT unnest(%s::text::bigint[]))
    ORDER BY id LIMIT %s
) AS m
"""
    # An array, so that leases are looked up once and not for each lane.
    f"""WHERE wanted.lane = ANY (ARRAY({_HELD}))
LIMIT %s
"""
)
_FIRST = f"""
SELECT {_COLUMNS} FROM outbox_message AS m
WHERE m.lane = ANY (ARRAY({_HELD})) AND m.id = ANY (%s::bigint[]) ORDER BY m.id LIMIT 1
"""  # noqa: S608 - constants
# The ids come lane by lane and segment by segment, so that each is sought in one index only.
_DELETE = f"""
DELETE FROM outbox_message AS m
USING (
    SELECT lane, segment, ids::bigint[]
    FROM unnest(%s::int[], %s::smallint[], %s::text[]) AS given (lane, segment, ids) OFFSET 0
) AS d
WHERE m.lane = d.lane AND m.segment = d.segment AND m.id = ANY (d.ids)
    AND d.lane = ANY (ARRAY({_HELD}))
"""  # noqa: S608 - constants
# FOR SHARE keeps other relays from taking the lanes until the commit; in order, against deadlocks.
_LOCK_LANES = """
SELECT lane, epoch FROM outbox_lane WHERE owner = %s AND lane = ANY(%s) ORDER BY lane FOR SHARE
"""


class PostgreSQLStore(ParkingStore):
    """Keep to `Store` by statements that check the relay's leases."""

    @property
    def deletes_beside_reads(self) -> bool:
        """Tell whether the process may have a second connection."""
        return most_connections() > 1

    def head(
        self,
        lanes: Sequence[int],
        *,
        epochs: Mapping[int, int],
        in_flight: Collection[Row],
        limit: int,
        lane_limit: int,
    ) -> "PendingAnswer":
        """Ask for the first rows of the lanes; see `Store.head()`."""
        busy = {row.lane for row in in_flight}
        wanted = [_array(lanes), _array(int(lane not in busy) for lane in lanes)]
        left_out = _array(row.id for row in in_flight)
        return _ask(_HEAD, [*wanted, left_out, lane_limit, *self._held(epochs), limit])

    def first_of(self, ids: Collection[int], epochs: Mapping[int, int]) -> Row | None:
        """Return the first of the rows still in the outbox."""
        found = _ask(_FIRST, [*self._held(epochs), _array(ids)]).result()
        return found[0] if found else None

    def try_delete(self) -> None:
        """Delete no row: PostgreSQL checks rights and replica identity before looking for rows."""
        self._delete((), {})

    def delete(self, rows: Collection[Row], epochs: Mapping[int, int]) -> None:
        """Delete acknowledged rows."""
        self._delete(rows, epochs)

    def _delete(self, rows: Collection[Row], epochs: Mapping[int, int]) -> None:
        ids: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for row in rows:
            ids[row.lane, row.segment].append(row.id)
        params: list[Any] = [
            _array(lane for lane, _ in ids),
            _array(segment for _, segment in ids),
            [*map(_array, ids.values())],
            *self._held(epochs),
        ]
        run_together((_PLAN, []), (_PLAN_ONCE, []), (_DELETE, params))

    def _held(self, epochs: Mapping[int, int]) -> list[str]:
        """Return the parameters of `_HELD`."""
        return [_array(epochs.keys()), _array(epochs.values()), self.owner]

    def _lock_lanes(self, lanes: Collection[int], epochs: Mapping[int, int]) -> set[int]:
        with connection.cursor() as cursor:
            cursor.execute(_LOCK_LANES, [self.owner, list(lanes)])
            return {lane for lane, epoch in cursor.fetchall() if epochs.get(lane) == epoch}


class PendingAnswer:
    """Hold a read on which the server works.

    Args:
        cursor: of the read.
        pipeline: everything opened for the read; closing waits for the answer.
    """

    def __init__(self, cursor: "psycopg.Cursor[tuple[Any, ...]]", pipeline: ExitStack) -> None:
        self._cursor = cursor
        self._pipeline = pipeline

    def result(self) -> list[Row]:
        """Wait for the answer, and return the rows."""
        self._pipeline.close()
        return [*map(row_of, self._cursor.fetchall())]


def most_connections() -> float:
    """Return how many connections the process may have, as psycopg_pool reckons."""
    pool = connection.settings_dict["OPTIONS"].get("pool")
    options = pool if isinstance(pool, dict) else {}
    fewest = options.get("min_size", _POOL_SIZE)
    return (options.get("max_size") or fewest) if pool else math.inf


def _ask(query: LiteralString, parameters: list[object]) -> PendingAnswer:
    """Send a read, and do not wait for the answer.

    PostgreSQL's binary format, past Django's cursor, costs half of the usual way. A pipeline is a
    single round trip, and the server begins while the relay does something else. Nothing is
    prepared: what psycopg prepares it lets go of after a rollback, and with it all that
    `run_together()` has prepared. The server commits right after writing the answer. An answer too
    large for the buffers at both ends of the connection waits for the reader, and keeps locks so
    long.
    """
    with ExitStack() as stack:
        cursor = stack.enter_context(connection.cursor())
        stack.enter_context(connection.wrap_database_errors)
        link: psycopg.Connection[Any] = cursor.connection
        stack.callback(_roll_back_failed, link)
        stack.enter_context(link.pipeline())
        psycopg.Cursor(link).execute("BEGIN")
        psycopg.Cursor(link).execute(_PLAN)
        read: psycopg.Cursor[tuple[Any, ...]] = psycopg.Cursor(link)
        read.adapters.register_loader("varchar", ByteaBinaryLoader)
        read.execute(query, parameters, binary=True)
        psycopg.Cursor(link).execute("COMMIT")
        return PendingAnswer(read, stack.pop_all())


def _roll_back_failed(link: "psycopg.Connection[Any]") -> None:
    """End a failed transaction: after an error the server has skipped the COMMIT."""
    if link.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
        link.rollback()


def _array(numbers: Iterable[int]) -> str:
    """Write an array as the text of a parameter."""
    return f"{{{','.join(map(str, numbers))}}}"
