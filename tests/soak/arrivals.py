"""What Kafka holds of the orders, in a file of SQLite, which SQL then asks."""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from kafka.consumer.fetcher import ConsumerRecord

SHOWN = 20  # of what is wrong

_TABLES = """
CREATE TABLE arrival (topic, partition, offset, key, id, type, sequence, digest);
CREATE INDEX by_key ON arrival (key, topic, type);
CREATE TABLE placed (order_id PRIMARY KEY, status, cancel_was_noted);
"""
_MESSAGES = """
WITH message AS (
    SELECT topic, id, key, type, sequence, min(offset) AS came
    FROM arrival GROUP BY topic, id
)
"""
# A repeated message counts where it came first: from then on it is known.
OUT_OF_ORDER = f"""{_MESSAGES}
SELECT key, topic, sequence FROM (
    SELECT *, max(sequence) OVER (
        PARTITION BY topic, key ORDER BY came ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS before FROM message
) WHERE sequence <= before
UNION ALL
SELECT key, topic, NULL FROM arrival GROUP BY topic, key HAVING count(DISTINCT partition) > 1
"""
LOST = """
SELECT order_id, 'no command that places it' FROM placed WHERE NOT EXISTS (
    SELECT 1 FROM arrival WHERE key = order_id AND topic = 'orders.commands'
        AND type = 'orders.place'
)
UNION ALL
SELECT order_id, 'no event of its end' FROM placed WHERE NOT EXISTS (
    SELECT 1 FROM arrival WHERE key = order_id AND topic = 'orders.events'
        AND type = 'order.' || status
)
UNION ALL
SELECT order_id, 'no command that cancels it' FROM placed WHERE cancel_was_noted AND NOT EXISTS (
    SELECT 1 FROM arrival WHERE key = order_id AND topic = 'orders.commands'
        AND type = 'orders.cancel'
)
"""
# A cancel whose answer was lost is asked for again: that is another command.
DOUBLED = f"""{_MESSAGES}
SELECT key, topic, count(*) FROM message WHERE type <> 'orders.cancel'
GROUP BY key, topic HAVING count(*) > 1
UNION ALL
SELECT key, 'changed in repetition', id FROM arrival GROUP BY topic, id
HAVING count(DISTINCT digest) > 1
UNION ALL
SELECT DISTINCT key, 'of no order', id FROM arrival
WHERE NOT EXISTS (SELECT 1 FROM placed WHERE order_id = key)
"""
REPEATED = "SELECT topic, count(*) - count(DISTINCT id) FROM arrival GROUP BY topic"


class Arrivals:
    """The records of Kafka, and beside them the orders of the database."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.executescript(_TABLES)

    def take(self, topic: str, records: Iterable[ConsumerRecord]) -> None:
        self._connection.executemany(
            "INSERT INTO arrival VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (_row(topic, record) for record in records),
        )

    def compare_with(self, orders: Iterable[tuple[str, str, bool]]) -> None:
        """Take the orders to compare with: id, status, and whether a cancel was noted."""
        self._connection.executemany("INSERT INTO placed VALUES (?, ?, ?)", orders)

    def find(self, sql: str) -> list[tuple[object, ...]]:
        """The first rows."""
        return self._connection.execute(sql).fetchmany(SHOWN)

    def repeated(self) -> dict[str, int]:
        """By topic, how many records repeat an earlier one."""
        return dict(self._connection.execute(REPEATED))


@contextmanager
def arrivals(file: Path) -> Iterator[Arrivals]:
    with closing(sqlite3.connect(file)) as connection:
        yield Arrivals(connection)


def _row(topic: str, record: ConsumerRecord) -> tuple[object, ...]:
    headers = {name: value or b"" for name, value in record.headers}
    digest = hashlib.sha256(repr((record.key, record.value, sorted(record.headers))).encode())
    return (
        topic,
        record.partition,
        record.offset,
        (record.key or b"").decode(),
        headers["ce_id"].decode(),
        headers["ce_type"].decode(),
        int(headers["ce_sequence"]),
        digest.digest(),
    )
