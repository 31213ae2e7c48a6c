"""Run a checkout of the service as it is deployed: web, relay and consumers, each a process."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks import cpu_time
from benchmarks.ports import free_port, listens
from brokers import broker_from_url
from brokers.errors import BrokerConfigurationError
from brokers.kafka_broker import KafkaBroker
from brokers.librdkafka.connecting import connection_config

ROOT = Path(__file__).resolve().parent.parent
WEB, RELAY, CONSUMER = PARTS = ("web", "relay", "consumer")
PATIENCE = 60.0  # seconds
ANSWER = 15.0  # seconds until Kafka has answered
# This process's own, which would lead another checkout astray or slow each start.
_NOT_PASSED_ON = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE", "DATABASE_DIRECT_URL")


@dataclass(frozen=True, slots=True)
class Checkout:
    """Name a directory with the service's code."""

    path: Path

    @property
    def title(self) -> str:
        """Name it."""
        return "the service" if self.path == ROOT else f"the service of {self.path.name}"

    @property
    def python(self) -> str:
        """Return its interpreter; of this checkout, the one at work."""
        if self.path == ROOT:
            return sys.executable
        found = self.path / ".venv" / "bin" / "python"
        if not found.exists() or not (self.path / "manage.py").exists():
            raise SystemExit(f"{self.path} is no checkout with manage.py and .venv")
        return str(found)

    def consumer(self, *, processes: int) -> list[str]:
        """Return the command that consumes; without the option where the checkout has none."""
        command = [self.python, "manage.py", "run_saga_consumer"]
        known = subprocess.run(
            [*command, "--help"], cwd=self.path, env=environment(), capture_output=True, check=False
        )
        if b"--processes" in known.stdout:
            return [*command, "--processes", str(processes)]
        if processes != 1:
            raise SystemExit(f"{self.path}: its run_saga_consumer knows no --processes")
        return command

    def migrate(self, database_url: str) -> None:
        """Create the tables."""
        command = [self.python, "manage.py", "migrate", "-v0"]
        env = environment(DATABASE_URL=database_url)
        if subprocess.run(command, cwd=self.path, env=env, check=False).returncode:
            raise SystemExit(f"{self.path}: the tables could not be created")


def environment(**own: str) -> dict[str, str]:
    """Return this process's environment for a part of the service."""
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
    return {
        "SECRET_KEY": "of-the-benchmark",
        "LOG_LEVEL": "WARNING",
        "PYTHONUNBUFFERED": "1",
        **kept,
        **own,
    }


class Service:
    """Run web, relay and consumers, for a `with` block.

    Args:
        checkout: whose code.
        database_urls: for each of `PARTS`.
        broker_url: Kafka's, with a prefix.
        consumers: how many commands that consume.
        processes: how many each of them runs.
    """

    def __init__(
        self,
        checkout: Checkout,
        *,
        database_urls: Mapping[str, str],
        broker_url: str,
        consumers: int,
        processes: int = 1,
    ) -> None:
        self.port = free_port()
        self._checkout = checkout
        self._urls = database_urls
        self._broker_url = broker_url
        self._consumers = consumers
        self._processes = processes
        self._logs = tempfile.TemporaryDirectory()
        self._started: list[tuple[str, subprocess.Popen[bytes], Path]] = []

    def __enter__(self) -> Self:
        """Start all parts, and wait until each is ready."""
        python = self._checkout.python
        try:
            self._start(RELAY, [python, "manage.py", "run_outbox_relay"])
            consumer = self._checkout.consumer(processes=self._processes)
            for _ in range(self._consumers):
                self._start(CONSUMER, consumer)
            gunicorn = [python, "-m", "gunicorn", "--config", "python:config.gunicorn"]
            self._start(WEB, [*gunicorn, "--bind", f"127.0.0.1:{self.port}"])
            for part, process, log in self._started:
                self._await(part, process, log)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def cpu_seconds(self) -> dict[str, float]:
        """Return the CPU time of each kind of part so far."""
        found = dict.fromkeys(PARTS, 0.0)
        for part, process, _ in self._started:
            found[part] += cpu_time.of_session(process.pid)
        return found

    def _start(self, part: str, command: list[str]) -> None:
        log = Path(self._logs.name) / f"{len(self._started)}.log"
        env = environment(DATABASE_URL=self._urls[part], SAGAZ_BROKER_URL=self._broker_url)
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                cwd=self._checkout.path,
                env=env,
                stdout=file,
                stderr=file,
                start_new_session=True,  # whose CPU time is counted together
            )
        self._started.append((part, process, log))

    def _stop(self) -> None:
        """Stop all parts; those that do not stop are killed."""
        for _, process, _ in self._started:
            process.send_signal(signal.SIGTERM)
        for _, process, _ in self._started:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._logs.cleanup()

    def _await(self, part: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
        expected = self._processes if part == CONSUMER else 1
        is_ready: Callable[[], bool] = (
            (lambda: listens(self.port))
            if part == WEB
            else (lambda: log.read_text().count(f"{part}: ready") == expected)
        )
        deadline = time.monotonic() + PATIENCE
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text().strip().splitlines() or ["no word"]
                raise SystemExit(f"{self._checkout.path}: {part} did not start: {said[-1]}")
            time.sleep(0.05)


class Topics:
    """Make a service's topics on Kafka, under a prefix of their own, for a `with` block.

    Their records carry Kafka's own time.

    Args:
        url: Kafka's; `url` is then the one to give to the service.
    """

    def __init__(self, url: str) -> None:
        self.url = f"{url}{'&' if '?' in url else '?'}prefix=bench-{uuid.uuid4().hex[:8]}."
        try:
            broker = broker_from_url(self.url) if url else None
        except BrokerConfigurationError as error:
            raise SystemExit(str(error)) from error
        if not isinstance(broker, KafkaBroker):
            raise SystemExit("this needs Kafka: SAGAZ_BROKER_URL=kafka://host:port")
        self._commands = broker.address.named("orders.commands")
        self._events = broker.address.named("orders.events")
        self._partitions = int(os.environ.get("KAFKA_PARTITIONS", "12"))
        # librdkafka would write a line for each try to connect.
        self._config = {**connection_config(broker.address), "log_level": 2}
        self._admin = AdminClient(self._config)

    def __enter__(self) -> Self:
        config = {"message.timestamp.type": "LogAppendTime"}
        topics = [
            NewTopic(name, num_partitions=self._partitions, replication_factor=1, config=config)
            for name in (self._commands, self._events)
        ]
        made = self._admin.create_topics(topics, operation_timeout=ANSWER)
        try:
            for future in made.values():
                future.result(ANSWER)
        except (KafkaException, TimeoutError) as error:
            raise SystemExit(f"Kafka did not make a topic: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        deleted = self._admin.delete_topics([self._commands, self._events])
        for future in deleted.values():
            future.result(PATIENCE)

    def arrivals(self) -> dict[str, float]:
        """Return when Kafka appended each order's command, in seconds of Unix time."""
        consumer = Consumer({**self._config, "group.id": uuid.uuid4().hex})
        try:
            places = [TopicPartition(self._commands, n, 0) for n in range(self._partitions)]
            ends = [consumer.get_watermark_offsets(place, PATIENCE)[1] for place in places]
            consumer.assign(places)
            return _read(consumer, count=sum(ends))
        finally:
            consumer.close()


def _read(consumer: Consumer, *, count: int) -> dict[str, float]:
    found: dict[str, float] = {}
    seen = 0
    deadline = time.monotonic() + PATIENCE
    while seen < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"Kafka: {count - seen} commands could not be read")
        for message in consumer.consume(10_000, 0.2):
            if message.error() is None:
                seen += 1
                key = (message.key() or b"").decode()
                found.setdefault(key, message.timestamp()[1] / 1000)
    return found
