"""Measure messages a second from one Python process to Kafka: bare loops, and our `Publisher`.

    TEST_BROKER_URL=kafka://host:port uv run --group dev python benchmarks/producing.py

300-byte values, 8 headers, 100 keys, 12 partitions, acks=all, idempotent. The cases run in turns;
the table shows the median of the rounds, this process's CPU time per message, and the ratio of ours
to the bare loop of the same client with the same settings.
"""

import argparse
import os
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from confluent_kafka import Producer
from kafka import KafkaProducer

from brokers import Acknowledged, Message, broker_from_url
from brokers.kafka.clients import KAFKA_PYTHON, LIBRDKAFKA
from brokers.kafka.sizes import BATCH_BYTES, LINGER_MS
from brokers.kafka_broker import KafkaBroker
from brokers.kafka_python.server import admin_client
from brokers.librdkafka.connecting import connection_config
from brokers.librdkafka.producer import producer_config

BATCH = 500  # what the relay publishes before it asks for reports
IN_FLIGHT = 20 * BATCH
PATIENCE = 60.0
HEADERS = tuple((f"ce_header{number}", b"0123456789abcdef") for number in range(8))
VALUE = b"x" * 300


@dataclass(slots=True)
class Case:
    """Describe one line of the table, with the results of its rounds."""

    client: str
    loop: str
    produce: Callable[[int], None]
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def measure(self, count: int) -> None:
        """Produce that many messages, and note rate and CPU time."""
        began, cpu_began = time.perf_counter(), time.process_time()
        self.produce(count)
        self.rates.append(count / (time.perf_counter() - began))
        self.cpu.append((time.process_time() - cpu_began) * 1e6 / count)


def main() -> None:
    """Measure all cases in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=200_000, help="messages a turn, librdkafka")
    parser.add_argument("--slow-count", type=int, default=20_000, help="the same, kafka-python")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    arguments = parser.parse_args()
    url = os.environ.get("TEST_BROKER_URL")
    if not url:
        raise SystemExit("set TEST_BROKER_URL=kafka://host:port")
    topic = f"bench-{uuid.uuid4().hex[:8]}.events"
    brokers = {client: _broker(url, client) for client in (KAFKA_PYTHON, LIBRDKAFKA)}
    brokers[KAFKA_PYTHON].ensure_topics([topic])
    counts = {KAFKA_PYTHON: arguments.slow_count, LIBRDKAFKA: arguments.count}
    cases = [
        Case(KAFKA_PYTHON, "bare", _bare_kafka_python(brokers[KAFKA_PYTHON], topic)),
        Case(KAFKA_PYTHON, "Publisher", _ours(brokers[KAFKA_PYTHON], topic)),
        Case(LIBRDKAFKA, "bare", _bare_librdkafka(brokers[LIBRDKAFKA], topic)),
        Case(LIBRDKAFKA, "Publisher", _ours(brokers[LIBRDKAFKA], topic)),
    ]
    try:
        for _ in range(arguments.rounds):
            for case in cases:
                case.measure(counts[case.client])
    finally:
        _delete(brokers[KAFKA_PYTHON], topic)
    _report(cases)


def _broker(url: str, client: str) -> KafkaBroker:
    broker = broker_from_url(url, partitions=12, client=client)
    if not isinstance(broker, KafkaBroker):
        raise SystemExit("set TEST_BROKER_URL=kafka://host:port")
    return broker


def _delete(broker: KafkaBroker, topic: str) -> None:
    """Delete the topic, which holds a gigabyte."""
    with admin_client(broker.address, timeout=10) as admin:
        admin.delete_topics([broker.address.named(topic)])


def _ours(broker: KafkaBroker, topic: str) -> Callable[[int], None]:
    """Publish as the relay does: a batch, then the reports so far, and so on."""
    messages = [Message(topic, f"key-{number}", VALUE, HEADERS) for number in range(100)]

    def produce(count: int) -> None:
        with closing(broker.publisher()) as publisher:
            publisher.publish(messages[0], token=-1)
            _wait(lambda: bool(publisher.reports(timeout=0.05)))
            landed = 0
            for first in range(0, count, BATCH):
                for token in range(first, min(first + BATCH, count)):
                    publisher.publish(messages[token % 100], token=token)
                behind = first - landed > IN_FLIGHT
                landed += _acknowledged(publisher.reports(timeout=0.05 if behind else 0))
            while landed < count:
                landed += _acknowledged(publisher.reports(timeout=0.05))

    return produce


def _acknowledged(reports: list[Any]) -> int:
    if not all(type(report) is Acknowledged for report in reports):
        raise SystemExit(f"something failed: {reports[:1]}")
    return len(reports)


def _bare_librdkafka(broker: KafkaBroker, topic: str) -> Callable[[int], None]:
    config = producer_config(careful=False, transactional_id=None)
    headers: list[tuple[str, str | bytes | None]] = [*HEADERS]
    keys = [f"key-{number}".encode() for number in range(100)]
    name = broker.address.named(topic)

    def produce(count: int) -> None:
        producer = Producer({**connection_config(broker.address), **config, "log_level": 2})
        landed = 0

        def land(error: object, _message: object) -> None:
            nonlocal landed
            landed += error is None

        producer.produce(name, VALUE, keys[0], on_delivery=land, headers=headers)
        _wait(lambda: bool(producer.poll(0.05)))
        for token in range(count):
            producer.produce(name, VALUE, keys[token % 100], on_delivery=land, headers=headers)
            if token % BATCH == 0:
                producer.poll(0.05 if token - landed > IN_FLIGHT else 0)
        producer.flush(PATIENCE)
        if landed != count + 1:
            raise SystemExit(f"{count + 1 - landed} messages failed")

    return produce


def _bare_kafka_python(broker: KafkaBroker, topic: str) -> Callable[[int], None]:
    headers = list(HEADERS)
    keys = [f"key-{number}".encode() for number in range(100)]
    name = broker.address.named(topic)

    def produce(count: int) -> None:
        producer = KafkaProducer(
            bootstrap_servers=list(broker.address.servers),
            acks="all",
            enable_idempotence=True,
            linger_ms=LINGER_MS,
            batch_size=BATCH_BYTES,
            metrics_enabled=False,
            **broker.address.options,
        )
        landed: list[object] = []
        producer.send(name, VALUE, keys[0], headers=headers)
        producer.flush(PATIENCE)
        for token in range(count):
            future = producer.send(name, VALUE, keys[token % 100], headers=headers)
            future.add_callback(landed.append)
        producer.flush(PATIENCE)
        producer.close(timeout=1)
        if len(landed) != count:
            raise SystemExit(f"{count - len(landed)} messages failed")

    return produce


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("Kafka does not answer")


def _report(cases: list[Case]) -> None:
    print(f"{'client':<14}{'loop':<12}{'messages/s':>12}{'CPU us each':>13}{'ratio':>8}")
    bare: dict[str, float] = {}
    for case in cases:
        rate = statistics.median(case.rates)
        bare.setdefault(case.client, rate)
        ratio = rate / bare[case.client]
        cpu = statistics.median(case.cpu)
        print(f"{case.client:<14}{case.loop:<12}{rate:>12,.0f}{cpu:>13.1f}{ratio:>8.2f}")


if __name__ == "__main__":
    main()
