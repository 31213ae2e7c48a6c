"""Drain one outbox to Kafka, in a process of its own: `python benchmarks/draining.py CASE …`.

The cost is printed as one line of JSON. `benchmarks/relay.py` fills the tables, runs this script,
and compares.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import psycopg
from psycopg.types.string import ByteaBinaryLoader

from benchmarks.measuring import statements
from brokers import broker_from_url
from brokers.kafka.clients import KAFKA_PYTHON, LIBRDKAFKA
from brokers.kafka_broker import KafkaBroker
from saga_runtime.processes import spare_the_collector

SOURCE = "/benchmark"
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Job:
    """Describe what to drain.

    Attributes:
        database: URL of the filled database.
        broker: URL of Kafka.
        topic: where the messages go.
        client: the Kafka client of the relay and of the bare loop.
        batch_size: messages per batch.
        count: messages in all.
    """

    database: str
    broker: str
    topic: str
    client: str
    batch_size: int
    count: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Hold what a drain has cost.

    Attributes:
        messages: how many were published.
        seconds: by the clock.
        cpu: seconds of this process, all threads.
        statements: without BEGIN and COMMIT.
    """

    messages: int
    seconds: float
    cpu: float
    statements: int


def measured(count: int, drain: Callable[[], object]) -> Cost:
    """Run a drain once, and measure its cost."""
    spare_the_collector()
    with statements() as executed:
        began, cpu_began = time.perf_counter(), time.process_time()
        drain()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
        return Cost(count, seconds, cpu, executed())


def ours(job: Job) -> Cost:
    """Run the relay as `manage.py run_outbox_relay` does, until `count` messages are published."""
    os.environ |= {
        "DATABASE_URL": job.database,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "LOG_LEVEL": "ERROR",
    }
    import django

    django.setup()
    from django.db import connection

    from relay.assembly import assemble_relay

    connection.ensure_connection()
    broker = broker_from_url(job.broker, client=job.client)
    stop = threading.Event()

    def enough() -> None:
        if relay.published >= job.count:
            stop.set()

    relay = assemble_relay(broker, source=SOURCE, batch_size=job.batch_size, alive=enough)
    cost = measured(job.count, lambda: relay.drain(stop))
    return replace(cost, messages=relay.published)


def bare(job: Job) -> Cost:
    """Do what any relay must do, and nothing else.

    Read, publish, wait for all, delete, one batch after the other, from a plain table: no lanes, no
    order after a failure, no parking.
    """
    with psycopg.connect(job.database, autocommit=True) as connection:
        connection.adapters.register_loader("varchar", ByteaBinaryLoader)
        broker = cast("KafkaBroker", broker_from_url(job.broker, client=job.client))
        return measured(
            job.count, lambda: _bare_loop(job, connection, _PRODUCERS[job.client](broker))
        )


_BARE_READ = """
SELECT id, topic::text, key::varchar, payload, message_id::text::varchar, type::varchar,
    to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US+00:00')::varchar,
    correlation_id::varchar, traceparent::varchar
FROM bare_outbox ORDER BY id LIMIT %s
"""


def _bare_loop(job: Job, connection: psycopg.Connection[Any], producer: "Producer") -> None:
    """Drain the plain table, with the headers that the relay sends."""
    # As fast as such a loop gets: the server makes the texts, and headers arrive as bytes.
    version, source = ("ce_specversion", b"1.0"), ("ce_source", SOURCE.encode())
    content = ("content-type", b"application/json")
    while rows := connection.execute(_BARE_READ, [job.batch_size], binary=True).fetchall():
        for number, topic, key, payload, message_id, kind, at, correlation, trace in rows:
            headers = [
                version,
                ("ce_id", message_id),
                ("ce_type", kind),
                source,
                ("ce_time", at),
                ("ce_subject", key),
                ("ce_sequence", b"%020d" % number),
                content,
                ("x-correlation-id", correlation),
                ("traceparent", trace),
            ]
            producer.send(topic, key, payload, headers)
        producer.flush()
        connection.execute("DELETE FROM bare_outbox WHERE id = ANY(%s)", [[r[0] for r in rows]])


class Producer:
    """Send by a bare client, with the relay's own settings."""

    def send(self, topic: str, key: bytes, value: bytes, headers: list[Any]) -> None:
        """Hand a message to the client."""
        raise NotImplementedError

    def flush(self) -> None:
        """Wait until all is acknowledged."""
        raise NotImplementedError


class Librdkafka(Producer):
    """Send by librdkafka."""

    def __init__(self, broker: KafkaBroker) -> None:
        from confluent_kafka import Producer as Client

        from brokers.librdkafka.connecting import connection_config
        from brokers.librdkafka.producer import producer_config

        config = producer_config(careful=False, transactional_id=None)
        self._client = Client({**connection_config(broker.address), **config, "log_level": 2})
        self._failed: list[object] = []

    def send(self, topic: str, key: bytes, value: bytes, headers: list[Any]) -> None:
        """Hand a message to the client."""
        self._client.produce(topic, value, key, on_delivery=self._land, headers=headers)

    def flush(self) -> None:
        """Wait until all is acknowledged."""
        if self._client.flush(PATIENCE) or self._failed:
            raise SystemExit(f"not all arrived: {self._failed[:1]}")

    def _land(self, error: object, _message: object) -> None:
        if error is not None:
            self._failed.append(error)


class KafkaPython(Producer):
    """Send by kafka-python."""

    def __init__(self, broker: KafkaBroker) -> None:
        from kafka import KafkaProducer

        from brokers.kafka.sizes import BATCH_BYTES, LINGER_MS

        self._client = KafkaProducer(
            bootstrap_servers=list(broker.address.servers),
            acks="all",
            enable_idempotence=True,
            linger_ms=LINGER_MS,
            batch_size=BATCH_BYTES,
            metrics_enabled=False,
        )
        self._futures: list[Any] = []

    def send(self, topic: str, key: bytes, value: bytes, headers: list[Any]) -> None:
        """Hand a message to the client."""
        self._futures.append(self._client.send(topic, value, key, headers=headers))

    def flush(self) -> None:
        """Wait until all is acknowledged."""
        self._client.flush(PATIENCE)
        for future in self._futures:
            future.get(0)
        self._futures.clear()


_PRODUCERS: dict[str, Callable[[KafkaBroker], Producer]] = {
    LIBRDKAFKA: Librdkafka,
    KAFKA_PYTHON: KafkaPython,
}


def main() -> None:
    """Run one case, and print its cost."""
    from benchmarks import draining_peers as peers

    cases: dict[str, Callable[[Job], Cost]] = {
        "ours": ours,
        "bare": bare,
        "sagaz": peers.sagaz,
        "faststream-outbox": peers.faststream,
        "django-reliable-outbox": peers.reliable,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("case", choices=cases)
    parser.add_argument("--database", required=True)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--client", default=LIBRDKAFKA)
    parser.add_argument("--batch-size", type=int, default=2000)
    parser.add_argument("--count", type=int, required=True)
    arguments = vars(parser.parse_args())
    os.environ.setdefault("SECRET_KEY", "of-the-benchmark")
    case = cases[arguments.pop("case")]
    print(json.dumps(asdict(case(Job(**arguments)))))


if __name__ == "__main__":
    main()
