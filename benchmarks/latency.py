"""Measure how long a message takes from commit to broker, at a given rate.

    DATABASE_URL=postgres://… TEST_BROKER_URL=kafka://… uv run python benchmarks/latency.py

Writers in a process of their own commit through `outbox.enqueue()`, and `run_outbox_relay` runs as
its own process. The time is Kafka's (LogAppendTime, whole milliseconds) minus the writer's clock
when its commit had returned, on one machine. Beside it the raw limit: a bare loop of librdkafka's
producer at the same rate with the relay's settings, until the broker has appended the message, and
until the loop has its acknowledgement. 300-byte payloads, 50 keys, acks=all. The cases run in
turns; the table shows all their messages together, without each turn's first two seconds, and each
turn's p99.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import argparse
import multiprocessing
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

import django
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from django.core.management import call_command

from benchmarks.measuring import own_database
from brokers import broker_from_url
from brokers.kafka_broker import KafkaBroker
from brokers.librdkafka.connecting import connection_config
from brokers.librdkafka.producer import producer_config

GOAL = "goal: p99 under 25 ms at 500 messages/s, woken"
WRITERS = 4
KEYS = 50
PARTITIONS = 12
PAYLOAD = {"filling": "x" * 286}  # 300 bytes as JSON
WARM_UP = 2.0  # seconds
PATIENCE = 60.0
READY = "relay: ready"

Latencies = list[float]  # in milliseconds


class Bench:
    """Measure on one database and one Kafka; each case has a topic of its own."""

    def __init__(self, database_url: str, broker_url: str, *, rate: int, seconds: float) -> None:
        broker = broker_from_url(broker_url)
        if not isinstance(broker, KafkaBroker):
            raise SystemExit("set TEST_BROKER_URL=kafka://host:port")
        self.database_url = database_url
        self.broker_url = broker_url
        self.rate = rate
        self.seconds = seconds
        self._address = broker.address
        self._config = connection_config(broker.address)
        self._admin = AdminClient(self._config)

    @contextmanager
    def topic(self) -> Iterator[str]:
        """Make a topic whose messages carry Kafka's own time, for the block."""
        name = f"bench-{uuid.uuid4().hex[:8]}.events"
        on_server = self._address.named(name)
        config = {"message.timestamp.type": "LogAppendTime"}
        topic = NewTopic(on_server, num_partitions=PARTITIONS, replication_factor=1, config=config)
        self._admin.create_topics([topic])[on_server].result()
        try:
            yield name
        finally:
            self._admin.delete_topics([on_server])[on_server].result()

    def relayed(self, *, wake_up: bool) -> Latencies:
        """Measure from commit to broker, by way of the relay.

        Args:
            wake_up: whether commits wake the relay; otherwise it only polls.
        """
        with self.topic() as topic, self._relay(topic, wake_up=wake_up):
            sent = self._written(topic, wake_up=wake_up)
            arrived = self._arrivals(topic, len(sent))
        begin = min(sent.values()) + WARM_UP
        return [arrived[token] - at * 1000 for token, at in sent.items() if at >= begin]

    def produced(self) -> tuple[Latencies, Latencies]:
        """Measure a bare producer: until each message was appended, and until acknowledged."""
        with self.topic() as topic:
            sent, acknowledged = self._produce(topic)
            arrived = self._arrivals(topic, len(sent))
        counted = [token for token, at in sent.items() if at >= sent[0] + WARM_UP]
        return (
            [arrived[token] - sent[token] * 1000 for token in counted],
            [(acknowledged[token] - sent[token]) * 1000 for token in counted],
        )

    def _produce(self, topic: str) -> tuple[dict[int, float], dict[int, float]]:
        config = producer_config(careful=False, transactional_id=None)
        producer = Producer({**self._config, **config, "log_level": 2})
        sent: dict[int, float] = {}
        acknowledged: dict[int, float] = {}

        def land(token: int, error: object, _message: Message) -> None:
            if error is not None:
                raise SystemExit(f"not produced: {error}")
            acknowledged[token] = time.time()

        over = threading.Event()
        polling = threading.Thread(target=_poll, args=(producer, over))
        polling.start()
        for token in _paced(self.rate, self.seconds):
            sent[token] = time.time()
            producer.produce(
                self._address.named(topic),
                b"x" * 300,
                f"key-{token % KEYS}".encode(),
                headers=[("ce_sequence", str(token))],
                on_delivery=partial(land, token),
            )
        producer.flush(PATIENCE)
        over.set()
        polling.join()
        return sent, acknowledged

    @contextmanager
    def _relay(self, topic: str, *, wake_up: bool) -> Iterator[None]:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "run_outbox_relay"],
            env=os.environ
            | {
                "SAGAZ_BROKER_URL": self.broker_url,
                "BROKER_TOPICS": topic,
                "OUTBOX_WAKE_UP": str(wake_up),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None  # noqa: S101
            if process.stdout.readline().strip() != READY:
                raise SystemExit("the relay did not start")
            try:
                yield
            finally:
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=PATIENCE)

    def _written(self, topic: str, *, wake_up: bool) -> dict[int, float]:
        """Write messages from another process; return when each id's commit had returned."""
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            return pool.apply(_write, (topic, self.rate, self.seconds, str(wake_up)))

    def _arrivals(self, topic: str, count: int) -> dict[int, int]:
        """Read back when Kafka appended each message, in milliseconds of Unix time."""
        config = {"group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
        name = self._address.named(topic)
        found: dict[int, int] = {}
        deadline = time.monotonic() + PATIENCE
        with closing(Consumer({**self._config, **config})) as consumer:
            consumer.assign([TopicPartition(name, n, 0) for n in range(PARTITIONS)])
            while len(found) < count:
                if time.monotonic() > deadline:
                    raise SystemExit(f"{count - len(found)} messages did not arrive")
                for message in consumer.consume(10_000, 0.1):
                    if message.error() is None:
                        headers = dict(message.headers() or [])
                        found[int(headers["ce_sequence"] or 0)] = message.timestamp()[1]
        return found


def _poll(producer: Producer, over: threading.Event) -> None:
    while not over.is_set():
        producer.poll(0.1)


def _write(topic: str, rate: int, seconds: float, wake_up: str) -> dict[int, float]:
    os.environ["OUTBOX_WAKE_UP"] = wake_up
    django.setup()
    committed: dict[int, float] = {}
    threads = [
        threading.Thread(target=_commit, args=(topic, rate / WRITERS, seconds, committed))
        for _ in range(WRITERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return committed


def _commit(topic: str, rate: float, seconds: float, committed: dict[int, float]) -> None:
    from django.db import connection, transaction

    from outbox import enqueue

    writer = threading.get_ident()
    for n in _paced(rate, seconds):
        with transaction.atomic():
            key = f"key-{(writer + n) % KEYS}"
            row = enqueue(topic=topic, key=key, type="bench.done", payload=PAYLOAD)
        committed[row.id] = time.time()
    connection.close()


def _paced(rate: float, seconds: float) -> Iterator[int]:
    """Yield 0, 1, 2, … at the given rate; late numbers follow at once."""
    began = time.monotonic()
    for n in range(int(rate * seconds)):
        due = began + n / rate
        if (early := due - time.monotonic()) > 0:
            time.sleep(early)
        yield n


def main() -> None:
    """Measure all cases in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rate", type=int, default=500, help="messages a second")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each case")
    arguments = parser.parse_args()
    with own_database(os.environ.get("DATABASE_URL", "")) as url:
        os.environ |= {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "config.settings"}
        os.environ |= {"LOG_LEVEL": "WARNING", "SECRET_KEY": uuid.uuid4().hex}
        django.setup()
        call_command("migrate", verbosity=0)
        broker_url = os.environ.get("TEST_BROKER_URL", "memory://")
        bench = Bench(url, broker_url, rate=arguments.rate, seconds=arguments.seconds)
        _print(_rounds(bench, arguments.rounds), rate=arguments.rate)


def _rounds(bench: Bench, rounds: int) -> dict[str, list[Latencies]]:
    found: dict[str, list[Latencies]] = {
        "bare producer, appended": [],
        "bare producer, acknowledged": [],
        "relay, woken by commits": [],
        "relay, polling only": [],
    }
    for turn in range(rounds):
        print(f"round {turn + 1} of {rounds}", file=sys.stderr)
        raw, acknowledged = bench.produced()
        turns = [raw, acknowledged, bench.relayed(wake_up=True), bench.relayed(wake_up=False)]
        for case, latencies in zip(found.values(), turns, strict=True):
            case.append(latencies)
    return found


def _print(found: dict[str, list[Latencies]], *, rate: int) -> None:
    print(f"{rate} messages/s, milliseconds")
    print(f"{'':30}{'p50':>8}{'p90':>8}{'p99':>8}{'max':>8}   p99 of each turn")
    for title, turns in found.items():
        together = [each for turn in turns for each in turn]
        figures = [percentile(together, share) for share in (0.5, 0.9, 0.99, 1.0)]
        each = ", ".join(f"{percentile(turn, 0.99):.1f}" for turn in turns)
        print(f"{title:30}{''.join(f'{figure:8.1f}' for figure in figures)}   {each}")
    print(GOAL)


def percentile(values: Latencies, share: float) -> float:
    """Return the value below which a share (0 to 1) of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


if __name__ == "__main__":
    main()
