"""Run one kafka-python producer, from its first message to its first error.

Invariants:
- A message never expires: it is acknowledged, refused or failed by the broker, or given up by
  `free()`. (With a deadline, a failing message would be overtaken by later messages of its key.)
- After the first error of any kind the producer is finished, and its pending messages are `Failed`.
  kafka-python's idempotent producer turns a refused message into a fatal state, and fails all
  further messages with the same reason; and a message queued behind a failed message must not
  overtake the failed message.
"""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from kafka import KafkaProducer
from kafka.producer.sender import Sender

from brokers.base import Acknowledged, Failed, Message, Report
from brokers.kafka.address import KafkaAddress
from brokers.kafka.faults import Fault
from brokers.kafka.outcomes import report_of
from brokers.kafka.sizes import BATCH_BYTES, LINGER_MS, MAX_MESSAGE_BYTES
from brokers.kafka.timing import DEFAULT_TIMING, KafkaTiming, milliseconds
from brokers.kafka_python.connecting import connect, is_connected
from brokers.kafka_python.faults import CLIENT_ERRORS, explain, fault_of

if TYPE_CHECKING:
    from kafka.producer.sender import ExceptionOf, RecordErrors

MAX_BLOCK_MS = 1_000
"""Milliseconds of `KafkaProducer.send()` to wait for a topic's metadata."""


class KafkaPythonProducer:
    """Send messages until the first error; kafka-python's own thread brings the reports.

    Args:
        address: where the servers are.
        changed: notified of each report; guards the state shared by both threads.
        timing: durations of the client.

    Raises:
        BrokerError: no server answers, or a server refuses us.

    Attributes:
        partitions: how many partitions each topic had when its first message was sent.
        pending: tokens of unreported messages, with the bytes of each.
        pending_bytes: the sum of these bytes.
        reports: reports, before they are fetched.
        moved_at: when the last report came, or the first message was sent.
        finished: no message may be sent any more.
    """

    def __init__(
        self,
        address: KafkaAddress,
        changed: threading.Condition,
        *,
        timing: KafkaTiming = DEFAULT_TIMING,
    ) -> None:
        self._timing = timing
        self._client, self._net_client = connect(
            KafkaProducer,
            address,
            bootstrap_timeout_ms=milliseconds(timing.connect),
            max_block_ms=MAX_BLOCK_MS,
            enable_idempotence=True,
            acks="all",
            delivery_timeout_ms=float("inf"),
            compression_type=None,
            linger_ms=LINGER_MS,
            batch_size=BATCH_BYTES,
            max_request_size=MAX_MESSAGE_BYTES,
            request_timeout_ms=milliseconds(timing.request),
            metadata_max_age_ms=milliseconds(timing.refresh),
            metrics_enabled=False,
        )
        _keep_batch_errors(self._client._sender)  # noqa: SLF001 - nothing is sent before this
        self.partitions: dict[str, int] = {}
        self.pending: dict[int, int] = {}
        self.pending_bytes = 0
        self.reports: list[Report] = []
        self.moved_at = self._answered_at = time.monotonic()
        self.finished = False
        self._changed = changed

    def send(self, message: Message, token: int, *, topic: str) -> None:
        """Queue a message.

        Args:
            message: the message to send.
            token: names the message in its report.
            topic: the topic's name on the servers.
        """
        with self._changed:
            if not self.pending:
                self.moved_at = self._answered_at = time.monotonic()
            self.pending[token] = len(message.value)
            self.pending_bytes += len(message.value)
        future = self._client.send(
            topic,
            key=message.key.encode(),
            value=message.value,
            headers=list(message.headers),
        )
        future.add_callback(self._acknowledge, token)
        future.add_errback(self._fail, token)

    def partition_counts(self) -> Mapping[str, int]:
        """Count the partitions of each topic that is published to, as the client heard last."""
        cluster = self._net_client.cluster
        return {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in self.partitions}

    def report(self, report: Report) -> None:
        """Add the report of a pending message; a second report of the message is dropped."""
        with self._changed:
            if self.forget(report.token):
                self.moved_at = time.monotonic()
                self.reports.append(report)
                self._changed.notify_all()

    def forget(self, token: int) -> bool:
        """Remove a message from the pending messages.

        Returns:
            Whether the message was still pending.
        """
        with self._changed:
            size = self.pending.pop(token, None)
            if size is not None:
                self.pending_bytes -= size
            return size is not None

    @property
    def is_away(self) -> bool:
        """Whether no server has answered for a while; the client is silent about outages."""
        if is_connected(self._net_client):
            self._answered_at = time.monotonic()
        return time.monotonic() - self._answered_at >= self._timing.away_after

    def stop(self) -> None:
        """Send nothing more. Never waits, so the client's own thread may call `stop()`."""
        self.finished = True
        self._client._sender.force_close()  # noqa: SLF001 - close() flushes first, which can hang

    def free(self) -> None:
        """Stop, wait a moment for the client's thread to end, and fail the pending messages."""
        self.stop()
        with suppress(*CLIENT_ERRORS):
            self._client.close(timeout=self._timing.close)
        with self._changed:
            for token in list(self.pending):
                self.report(Failed(token, "given up"))

    def _acknowledge(self, token: int, _metadata: object) -> None:
        self.report(Acknowledged(token))

    def _fail(self, token: int, error: Exception) -> None:
        self.report(judge(token, error))
        if not self.finished:
            self.stop()


def _keep_batch_errors(sender: Sender) -> None:
    """Give an error, unless a message is at fault, to each message of the batch unchanged.

    The broker adds a reason for each record, and kafka-python makes an `InvalidRecordError` of the
    reason, whatever the error is: a wrong clock would look like wrong messages.
    """
    of_each = sender._record_exceptions_fn  # noqa: SLF001

    def of_all(error: Exception, records: "RecordErrors", text: str | None) -> "ExceptionOf":
        if fault_of(error) is Fault.MESSAGE:
            return of_each(error, records, text)
        return lambda _: error

    sender._record_exceptions_fn = of_all  # noqa: SLF001


def judge(token: int, error: Exception) -> Report:
    """Report a message as refused where the error is about the message, otherwise as failed."""
    return report_of(fault_of(error), token, explain(error))
