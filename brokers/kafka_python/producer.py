"""One Kafka producer's life.

Invariants:
- A message never expires: it is acknowledged, refused or failed by the broker, or given up by
  `free()`. (With a deadline, messages that fail let later ones of their key overtake them.)
- After the first error of any kind the producer is finished, and what it still holds is `Failed`.
  kafka-python's idempotent producer turns one refused message into a fatal state and then fails
  every other message with that same reason; and what is queued behind a failed message must not
  overtake it.
"""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from kafka import KafkaProducer
from kafka.producer.sender import Sender

from brokers.base import Acknowledged, Failed, Message, Refused, Report
from brokers.kafka.address import KafkaAddress
from brokers.kafka.faults import Fault
from brokers.kafka.topic_shapes import HEARD_EVERY_MS
from brokers.kafka_python.connecting import CLIENT_ERRORS, connect, explained, fault, is_connected

if TYPE_CHECKING:
    from kafka.producer.sender import ExceptionOf, RecordErrors

CONNECT_TIMEOUT_MS = 2_000
REQUEST_TIMEOUT_MS = 10_000  # after it a silent connection is closed, and the request repeated
MAX_BLOCK_MS = 1_000
STOP_TIMEOUT = 2.0
AWAY_AFTER = 2.0
LINGER_MS = 2
BATCH_BYTES = 131_072  # well below a topic's default max.message.bytes
MAX_REQUEST_BYTES = 32 * 1024 * 1024  # above it no broker is asked; below it the topic decides


class Run:
    """One producer's life: from its first message to its first error."""

    def __init__(self, address: KafkaAddress, changed: threading.Condition) -> None:
        self.producer, self._net_client = connect(
            KafkaProducer,
            address,
            bootstrap_timeout_ms=CONNECT_TIMEOUT_MS,
            max_block_ms=MAX_BLOCK_MS,
            enable_idempotence=True,
            acks="all",
            delivery_timeout_ms=float("inf"),
            compression_type=None,
            linger_ms=LINGER_MS,
            batch_size=BATCH_BYTES,
            max_request_size=MAX_REQUEST_BYTES,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            metadata_max_age_ms=HEARD_EVERY_MS,
            metrics_enabled=False,
        )
        _tell_the_batchs_error(self.producer._sender)  # noqa: SLF001 - nothing is sent before this
        self.partitions: dict[str, int] = {}
        self.pending: dict[int, int] = {}  # token to size
        self.pending_bytes = 0
        self.reports: list[Report] = []
        self.moved_at = self._answered_at = time.monotonic()
        self.finished = False
        self._changed = changed

    def send(self, message: Message, token: int, *, topic: str) -> None:
        """`topic`: its name on the server."""
        with self._changed:
            if not self.pending:
                self.moved_at = self._answered_at = time.monotonic()
            self.pending[token] = len(message.value)
            self.pending_bytes += len(message.value)
        future = self.producer.send(
            topic,
            key=message.key.encode(),
            value=message.value,
            headers=list(message.headers),
        )
        future.add_callback(self._acknowledge, token)
        future.add_errback(self._fail, token)

    def partition_counts(self) -> Mapping[str, int]:
        """Partitions of each topic that it publishes to, as its client has heard last."""
        cluster = self._net_client.cluster
        return {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in self.partitions}

    def land(self, report: Report) -> None:
        """The fate of one message; only the first word on it counts."""
        with self._changed:
            if self.forget(report.token):
                self.moved_at = time.monotonic()
                self.reports.append(report)
                self._changed.notify_all()

    def forget(self, token: int) -> bool:
        """Whether the message was still pending."""
        with self._changed:
            size = self.pending.pop(token, None)
            if size is not None:
                self.pending_bytes -= size
            return size is not None

    @property
    def is_away(self) -> bool:
        """Nobody has answered for a while: the producer itself says nothing of that."""
        if is_connected(self._net_client):
            self._answered_at = time.monotonic()
        return time.monotonic() - self._answered_at >= AWAY_AFTER

    def stop(self) -> None:
        """Send nothing more. Does not wait, so that the producer's own thread may call it."""
        self.finished = True
        self.producer._sender.force_close()  # noqa: SLF001 - close() flushes first, which can hang

    def free(self) -> None:
        """Stop, wait a moment for the thread to end, and give up what is unacknowledged."""
        self.stop()
        with suppress(*CLIENT_ERRORS):
            self.producer.close(timeout=STOP_TIMEOUT)
        with self._changed:
            for token in list(self.pending):
                self.land(Failed(token, "given up"))

    def _acknowledge(self, token: int, _metadata: object) -> None:
        self.land(Acknowledged(token))

    def _fail(self, token: int, error: Exception) -> None:
        self.land(judged(token, error))
        if not self.finished:
            self.stop()


def _tell_the_batchs_error(sender: Sender) -> None:
    """Have an error that is no message's fault reach each message of its batch as it is. The broker
    adds why each record was left out, and kafka-python makes that an InvalidRecordError, whatever
    the error is: a clock that is wrong would look like so many wrong messages."""
    of_each = sender._record_exceptions_fn  # noqa: SLF001

    def of_all(error: Exception, records: "RecordErrors", text: str | None) -> "ExceptionOf":
        if fault(error) is Fault.MESSAGE:
            return of_each(error, records, text)
        return lambda _: error

    sender._record_exceptions_fn = of_all  # noqa: SLF001


def judged(token: int, error: Exception) -> Report:
    """Refused where the error is about this message, otherwise Failed."""
    whose, reason = fault(error), explained(error)
    if whose is Fault.MESSAGE:
        return Refused(token, reason)
    return Failed(token, reason, only_it=whose is Fault.TOPIC, lasting=whose is Fault.OURS)
