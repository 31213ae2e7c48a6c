"""The relay's read and delete as PostgreSQL does them: by lane, over all segments together.

Invariant: both touch only lanes that are the relay's as the statement begins. So one that has slept
past its lease reads nothing behind a message that the next holder has parked.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, LiteralString, Protocol

import psycopg
from django.db import connection
from psycopg.types.string import ByteaBinaryLoader

Fields = tuple[Any, ...]


class Place(Protocol):
    """Where a row is."""

    @property
    def id(self) -> int: ...
    @property
    def lane(self) -> int: ...
    @property
    def segment(self) -> int: ...


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
# The fields of `relay.rows.Row`; what is text here comes as str, and what is varchar as bytes.
_COLUMNS = """m.id, m.lane, m.segment, m.topic::text, m.key::text, m.payload, m.headers::text,
    m.message_id::text::varchar, m.type::varchar, m.correlation_id::varchar,
    m.traceparent::varchar, (m.created_at AT TIME ZONE 'UTC')::text::varchar"""
# The lanes that are this relay's, as it knows them, and still are.
_HELD = """
SELECT l.lane
FROM outbox_lane AS l JOIN unnest(%s::int[], %s::bigint[]) AS held (lane, epoch)
    ON l.lane = held.lane AND l.epoch = held.epoch
WHERE l.owner = %s
"""
# NOT IN (SELECT …) is one hash table for all; of <> ALL, every segment's planning and scan looks
# through the whole list. OFFSET 0 keeps it above the segments. The list stays a text, and nobody
# looks at it, while the lanes with nothing under way are enough.
_HEAD = f"""
SELECT {_COLUMNS} FROM unnest(%s::int[], %s::bool[]) AS wanted (lane, is_idle)
CROSS JOIN LATERAL (
    SELECT * FROM (
        SELECT * FROM outbox_message WHERE lane = wanted.lane ORDER BY id OFFSET 0
    ) AS whole
    WHERE wanted.is_idle OR id NOT IN (SELECT unnest(%s::text::bigint[]))
    ORDER BY id LIMIT %s
) AS m
WHERE wanted.lane = ANY (ARRAY({_HELD}))
LIMIT %s
"""  # noqa: S608 - constants
_FIRST = f"""
SELECT {_COLUMNS} FROM outbox_message AS m
WHERE m.lane = ANY (ARRAY({_HELD})) AND m.id = ANY (%s::bigint[]) ORDER BY m.id LIMIT 1
"""  # noqa: S608 - constants
_DELETE = f"""{_PLAN};
DELETE FROM outbox_message AS m
USING (
    SELECT lane, segment, ids::bigint[]
    FROM unnest(%s::int[], %s::smallint[], %s::text[]) AS given (lane, segment, ids) OFFSET 0
) AS d
WHERE m.lane = d.lane AND m.segment = d.segment AND m.id = ANY (d.ids)
    AND d.lane = ANY (ARRAY({_HELD}))
"""  # noqa: S608 - constants


def head(
    lanes: Sequence[int],
    *,
    busy: Collection[int],
    besides: Iterable[int],
    epochs: Mapping[int, int],
    owner: str,
    limit: int,
    lane_limit: int,
) -> Callable[[], list[Fields]]:
    """Asks; what it returns waits for the answer. Until then the connection is for nothing else.

    Args:
        besides: ids to be left out.
        busy: the lanes that they are in.
    """
    is_idle = _array(int(lane not in busy) for lane in lanes)
    first = [_array(lanes), is_idle, _array(besides), lane_limit]
    return _asked(_HEAD, [*first, *_held(epochs, owner), limit])


def first_of(ids: Iterable[int], epochs: Mapping[int, int], owner: str) -> list[Fields]:
    return _asked(_FIRST, [*_held(epochs, owner), _array(ids)])()


def delete(rows: Iterable[Place], epochs: Mapping[int, int], owner: str) -> None:
    ids: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for row in rows:
        ids[row.lane, row.segment].append(row.id)
    params: list[Any] = [
        _array(lane for lane, _ in ids),
        _array(segment for _, segment in ids),
        [*map(_array, ids.values())],
        *_held(epochs, owner),
    ]
    with connection.cursor() as cursor:
        cursor.execute(_DELETE, params)


def _asked(query: LiteralString, parameters: list[object]) -> Callable[[], list[Fields]]:
    """In PostgreSQL's binary format, and past Django's cursor: half of what it costs otherwise. As
    a pipeline, it is one round trip, and the server begins while we do something else. It commits
    by itself as soon as the server has written the answer. One too large for the buffers at both
    ends of the connection waits for us, and holds its locks so long."""
    with ExitStack() as stack:
        cursor = stack.enter_context(connection.cursor())
        stack.enter_context(connection.wrap_database_errors)
        link: psycopg.Connection[Any] = cursor.connection
        stack.callback(_roll_back_failed, link)
        stack.enter_context(link.pipeline())
        psycopg.Cursor(link).execute("BEGIN")
        psycopg.Cursor(link).execute(_PLAN)
        raw: psycopg.Cursor[Fields] = psycopg.Cursor(link)
        raw.adapters.register_loader("varchar", ByteaBinaryLoader)
        raw.execute(query, parameters, binary=True)
        psycopg.Cursor(link).execute("COMMIT")
        answered = stack.pop_all()

    def answer() -> list[Fields]:
        answered.close()
        return raw.fetchall()

    return answer


def _roll_back_failed(link: psycopg.Connection[Any]) -> None:
    """After an error the server has skipped our COMMIT, and waits for the transaction's end."""
    if link.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
        link.rollback()


def _held(epochs: Mapping[int, int], owner: str) -> list[str]:
    """The parameters of `_HELD`."""
    return [_array(epochs.keys()), _array(epochs.values()), owner]


def _array(numbers: Iterable[int]) -> str:
    """An array as one parameter's text."""
    return f"{{{','.join(map(str, numbers))}}}"
