"""What a run has left behind, seen from outside: in the database, in Kafka, in the logs."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tests.e2e.full_service import FullService
from tests.soak import arrivals as kafka
from tests.soak import books

SHOWN = kafka.SHOWN
TOPICS = ("orders.commands", "orders.events")

Rows = list[tuple[object, ...]]


@dataclass(slots=True)
class Findings:
    """What was found. Of what is wrong, the first rows.

    Attributes:
        lost: orders that were answered and are not in the database, or whose messages are not in
            Kafka.
        doubled: what was done twice, and messages that say the same twice.
        out_of_order: messages that came first after a later one of their key.
        elsewise: orders that did not end as planned, totals that do not add up, what is left over.
        tracebacks: lines of the logs.
        statuses: how many orders ended how.
        repeated: by topic, how many records repeat an earlier one.
        taken_over: sagas that more than one worker has run.
        fenced: how often a worker was told that its saga was taken over.
    """

    lost: Rows = field(default_factory=list)
    doubled: Rows = field(default_factory=list)
    out_of_order: Rows = field(default_factory=list)
    elsewise: Rows = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)
    taken_over: int = 0
    fenced: int = 0


def look(service: FullService, *, orders: int, logs: Iterable[str]) -> Findings:
    """Look everywhere, once all has come to rest.

    Args:
        orders: how many were placed.
        logs: the lines of all processes.
    """
    found = Findings(statuses=service.statuses())
    _look_at_database(service, orders, found)
    _look_at_kafka(service, found)
    for line in logs:
        found.fenced += "was taken over by another worker" in line
        if "Traceback" in line and len(found.tracebacks) < SHOWN:
            found.tracebacks.append(line)
    return found


def _look_at_database(service: FullService, orders: int, found: Findings) -> None:
    def first(what: str, sql: str) -> Rows:
        rows: list[Any] = service.query(f"SELECT * FROM ({sql}) AS wrong LIMIT {SHOWN}")
        return [(what, *row) for row in rows]

    found.lost += first("not in the database", books.lost(orders))
    for what, sql in books.doubled(orders).items():
        found.doubled += first(what, sql)
    for what, sql in books.ELSEWISE.items():
        found.elsewise += first(what, sql)
    [(found.taken_over,)] = service.query(books.TAKEN_OVER)


def _look_at_kafka(service: FullService, found: Findings) -> None:
    with kafka.arrivals(service.directory / "arrivals.sqlite3") as arrivals:
        for topic in TOPICS:
            arrivals.take(topic, service.each_kafka_record(topic))
        with (
            psycopg.connect(service.env["DATABASE_URL"]) as connection,
            connection.cursor("each_order") as orders,  # named: it reads some at a time
        ):
            arrivals.compare_with(orders.execute(books.EACH_ORDER))
        found.lost += arrivals.find(kafka.LOST)
        found.doubled += arrivals.find(kafka.DOUBLED)
        found.out_of_order += arrivals.find(kafka.OUT_OF_ORDER)
        found.repeated = arrivals.repeated()
