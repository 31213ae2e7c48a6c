"""`manage.py up` over PostgreSQL and Kafka: its processes, and what SQL and Kafka show of it."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from brokers import broker_from_url
from brokers.kafka_broker import KafkaBroker
from tests import processes
from tests.e2e.service import START_TIMEOUT, Service, until

_COLUMNS = "pid=,ppid=,pgid=,stat=,args="
PARTITIONS = 4
PLACE_ORDERS = (*processes.MANAGE, "place_orders", "--patience", "600")
LEASE = 2  # seconds until a killed consumer's sagas are taken over

CHARGED_TWICE = """
    SELECT reference FROM orders_simulatedcharge WHERE amount IS NOT NULL
    GROUP BY reference HAVING count(*) > 1
"""
SHIPPED_TWICE = "SELECT order_id FROM orders_shipment GROUP BY order_id HAVING count(*) > 1"


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    parent: int
    group: int
    command: str

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


class FullService(Service):
    """Gunicorn, relay and consumers under `manage.py up`.

    Args:
        directory: where it keeps its log.
        database_url: an empty database on PostgreSQL.
        broker_url: Kafka, with a prefix of its own for topics and groups.
        consumers: how many.
    """

    def __init__(
        self, directory: Path, *, database_url: str, broker_url: str, consumers: int = 2
    ) -> None:
        super().__init__(directory, "--consumers", str(consumers))
        self.env = {
            "DATABASE_URL": database_url,
            "SAGAZ_BROKER_URL": broker_url,
            "SECRET_KEY": "only for tests",
            "KAFKA_PARTITIONS": str(PARTITIONS),
            "SAGA_LEASE": str(LEASE),
        }
        self._env |= self.env
        broker = broker_from_url(broker_url)
        assert isinstance(broker, KafkaBroker)
        self.address = broker.address
        self._consumers = consumers

    def start(self, **env: str) -> None:
        """Start it and wait until every part is ready."""
        super().start(**env)
        until(lambda: self.output.count("relay: ready"), timeout=START_TIMEOUT)
        until(
            lambda: self.output.count("consumer: ready"),
            reaches=self._consumers,
            timeout=START_TIMEOUT,
        )

    def query(self, sql: str) -> list[Any]:
        """Look into its database, or change it, from outside."""
        with psycopg.connect(self.env["DATABASE_URL"]) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def processes(self) -> list[Process]:
        """`up` and everything that it has started."""
        return [each for each in running_processes() if each.group == self.process.pid]

    def children(self, command: str) -> list[Process]:
        """The parts that the supervisor keeps running, with this in their command line."""
        return [
            each
            for each in self.processes()
            if each.parent == self.process.pid and command in each.command
        ]

    def web(self) -> Process:
        [found] = self.children("gunicorn")
        return found

    def relay(self) -> Process:
        [found] = self.children("run_outbox_relay")
        return found

    def consumers(self) -> list[Process]:
        return self.children("run_saga_consumer")

    def parts(self) -> set[int]:
        """The process ids of web, relay and consumers."""
        return {each.pid for each in self.children("")}

    @contextmanager
    def placing(self, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
        """`place_orders` at work; the end of the block waits for it and wants its success."""
        placing = subprocess.Popen(
            [*PLACE_ORDERS, "--url", self.url, *arguments],
            env=processes.environment(self.directory) | self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with placing:
            try:
                yield placing
                said, _ = placing.communicate()
            finally:
                placing.kill()
        assert placing.returncode == 0, said

    def place(self, *arguments: str) -> None:
        """`place_orders` from beginning to end."""
        with self.placing(*arguments):
            pass

    def statuses(self) -> dict[str, int]:
        """How many orders have which status."""
        return dict(self.query("SELECT status, count(*) FROM orders_order GROUP BY status"))

    def assert_nothing_was_done_twice(self) -> None:
        assert self.query(CHARGED_TWICE) == []
        assert self.query(SHIPPED_TWICE) == []

    def kafka_records(self, topic: str) -> list[ConsumerRecord]:
        """All that the topic holds."""
        return list(self.each_kafka_record(topic))

    def each_kafka_record(self, topic: str) -> Iterator[ConsumerRecord]:
        """All that the topic holds, read with a client of our own."""
        places = [TopicPartition(self.address.named(topic), n) for n in range(PARTITIONS)]
        with self.kafka_client(KafkaConsumer, enable_auto_commit=False) as consumer:
            consumer.assign(places)
            consumer.seek_to_beginning()
            ends = consumer.end_offsets(places)
            while any(consumer.position(place) < end for place, end in ends.items()):
                for records in consumer.poll(timeout_ms=200).values():
                    yield from records

    def delete_topics(self) -> None:
        with self.kafka_client(KafkaAdminClient) as admin:
            admin.delete_topics(
                [name for name in admin.list_topics() if name.startswith(self.address.prefix)]
            )

    @contextmanager
    def kafka_client(self, factory: Any, **options: Any) -> Iterator[Any]:
        client = factory(bootstrap_servers=list(self.address.servers), **options)
        try:
            yield client
        finally:
            client.close()


def running_processes() -> list[Process]:
    """Without those that have ended and only wait to be noticed."""
    listed = subprocess.check_output(["ps", "-A", "-ww", "-o", _COLUMNS], text=True)
    rows = (line.split(None, 4) for line in listed.splitlines())
    return [
        Process(int(pid), int(parent), int(group), command)
        for pid, parent, group, state, command in rows
        if not state.startswith("Z")
    ]
