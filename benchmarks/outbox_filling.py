"""Fill an outbox in bulk: rows as `enqueue()` writes them in a request, 300-byte payloads."""

from typing import LiteralString

import psycopg

from outbox.murmur2 import murmur2

KEYS = 10_000
PAYLOAD_BYTES = 300
BLOCK = 10_000  # consecutive rows in one segment, as if written in the segment's time

# `n`, a key and its hash for each row; neighbours have different keys.
_FROM: LiteralString = """
FROM generate_series(1, %(count)s) AS n
JOIN unnest(%(keys)s::text[], %(hashes)s::bigint[]) WITH ORDINALITY AS keys (key, hash, number)
    ON keys.number = n * 7919::bigint %% %(keys_count)s + 1
ORDER BY n
"""
_PAYLOAD: LiteralString = """'{"n":"' || lpad(n::text, 10, '0') || %(rest)s"""
_REST = '","padding":"' + "x" * (PAYLOAD_BYTES - 31) + '"}'

_COLUMNS: LiteralString = """message_id, topic, key, key_hash, type, payload, headers,
    correlation_id, traceparent, created_at"""
_ROW: LiteralString = f"""gen_random_uuid(), %(topic)s, keys.key, keys.hash, 'order.fulfilled',
    convert_to({_PAYLOAD}, 'UTF8'), '{{}}', md5('correlation' || n)::uuid::text,
    '00-' || md5('trace' || n) || '-00f067aa0ba902b7-01', clock_timestamp()"""
OURS: LiteralString = f"""
INSERT INTO outbox_message ({_COLUMNS}, segment) SELECT {_ROW}, n / {BLOCK} %% 4 {_FROM}
"""
BARE: LiteralString = f"""
DROP TABLE IF EXISTS bare_outbox;
CREATE TABLE bare_outbox (
    id bigserial PRIMARY KEY, message_id uuid NOT NULL, topic text NOT NULL, key text NOT NULL,
    key_hash bigint NOT NULL, type text NOT NULL, payload bytea NOT NULL, headers jsonb NOT NULL,
    correlation_id text NOT NULL, traceparent text NOT NULL, created_at timestamptz NOT NULL
);
INSERT INTO bare_outbox ({_COLUMNS}) SELECT {_ROW} {_FROM}
"""

# The peers' own tables, each as its library writes it.
SAGAZ: LiteralString = f"""
INSERT INTO saga_outbox (event_id, saga_id, aggregate_id, event_type, payload, created_at)
SELECT gen_random_uuid(), keys.key, keys.key, %(topic)s, ({_PAYLOAD})::jsonb, clock_timestamp()
{_FROM}
"""
FASTSTREAM: LiteralString = f"""
INSERT INTO outbox (queue, payload, headers)
SELECT 'orders', convert_to({_PAYLOAD}, 'UTF8'), jsonb_build_object('content-type',
    'application/json', 'correlation_id', md5('correlation' || n), 'key', keys.key)
{_FROM}
"""
RELIABLE: LiteralString = f"""
INSERT INTO reliable_outbox_outboxmessage (message_id, kind, name, payload, headers, key,
    destination, status, attempts, max_attempts, backoff, locked_by, last_error, last_traceback)
SELECT gen_random_uuid(), 'event', %(topic)s, ({_PAYLOAD})::jsonb, '{{}}', keys.key, 'default',
    'pending', 0, 10, 'exponential', '', '', ''
{_FROM}
"""


def fill(
    url: str, statement: LiteralString, *, topic: str, count: int, vacuum: bool = True
) -> None:
    """Insert messages.

    Args:
        url: PostgreSQL's URL.
        statement: one of the statements above.
        topic: of all messages.
        count: how many.
        vacuum: whether to vacuum and analyze afterwards.
    """
    keys = [f"ORD-{number:08}" for number in range(KEYS)]
    parameters = {
        "topic": topic,
        "rest": _REST,
        "count": count,
        "keys": keys,
        "hashes": [murmur2(key.encode()) for key in keys],
        "keys_count": KEYS,
    }
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute(statement, parameters)
        if vacuum:
            connection.execute("VACUUM (ANALYZE)")
