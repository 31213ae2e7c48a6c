"""Run one librdkafka producer, from its first message to its first error.

Invariants, the same as of `KafkaPythonProducer`:
- A message never expires: it is acknowledged, refused or failed by the broker, or given up by
  `free()`.
- After the first error of any kind the producer is finished, and its pending messages are `Failed`.
  Without the setting `enable.gapless.guarantee`, librdkafka would send the messages behind a
  refused message before the caller has heard of the refusal.

Everything happens in the caller's thread: librdkafka's callbacks run inside `poll()`.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Delivered

from brokers.base import Acknowledged, Failed, Message, Refused, Report
from brokers.kafka.address import KafkaAddress
from brokers.kafka.faults import Fault
from brokers.kafka.outcomes import report_of
from brokers.kafka.sizes import BATCH_BYTES, LINGER_MS, MAX_MESSAGE_BYTES, MAX_QUEUED_BYTES
from brokers.kafka.timing import DEFAULT_TIMING, KafkaTiming, milliseconds
from brokers.librdkafka.connecting import make_client
from brokers.librdkafka.faults import FENCED, TOPIC_REFUSED, explain, fault_of, kafka_error
from brokers.librdkafka.statistics import partition_counts

MAX_QUEUED_MESSAGES = 100_000

_AWAY = (KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION)  # noqa: SLF001

_make_acknowledged: Callable[[tuple[int]], Acknowledged] = partial(tuple.__new__, Acknowledged)
"""`Acknowledged._make`, three times as fast."""


class LibrdkafkaProducer:
    """Send messages until the first error.

    Args:
        address: where the servers are.
        careful: send every message in its own batch, so a refusal judges a single message.
        transactional_id: publish in transactions, each until `commit()`.
        timing: durations of the client.
        max_queued_bytes: above them `send()` raises BufferError.

    Raises:
        BrokerConfigurationError: librdkafka refuses the configuration.
        KafkaException: there are no transactions: no server answers, or a server has none.

    Attributes:
        topics: names of existing topics, with their names on the servers.
        pending: tokens of unreported messages.
        acknowledged: tokens of acknowledged messages, before the reports are fetched.
        failures: reports of failures, before they are fetched.
        finished: no message may be sent any more.
        fenced: another producer has taken over the transactional id.
        refused_in_company: a batch of several messages was refused.
        away: librdkafka's error about an outage; None where a server answers.
        in_transaction: a message was sent since the last commit.
        is_committing: a commit has not ended yet.
    """

    def __init__(
        self,
        address: KafkaAddress,
        *,
        careful: bool = False,
        transactional_id: str | None = None,
        timing: KafkaTiming = DEFAULT_TIMING,
        max_queued_bytes: int = MAX_QUEUED_BYTES,
    ) -> None:
        self.topics: dict[str, str] = {}
        self.pending: set[int] = set()
        self.acknowledged: list[int] = []
        self.failures: list[Refused | Failed] = []
        self.finished = False
        self.fenced = False
        self.refused_in_company = False
        self.away: KafkaError | None = None
        self.is_transactional = transactional_id is not None
        self.in_transaction = False
        self.is_committing = False
        self._timing = timing
        self._careful_until = time.monotonic() + timing.careful_for if careful else 0.0
        self._statistics = ""
        config = producer_config(
            careful=careful,
            transactional_id=transactional_id,
            timing=timing,
            max_queued_bytes=max_queued_bytes,
        )
        callbacks = {"error_cb": self._note_error, "stats_cb": self._note_statistics}
        self._client = make_client(Producer, address, {**config, **callbacks}, timing=timing)
        if self.is_transactional:
            self._init_transactions()

    @property
    def is_stale(self) -> bool:
        """Whether the careful time is over, and a new producer can take over without a loss."""
        is_idle = not self.pending and not self.in_transaction
        return 0 < self._careful_until < time.monotonic() and is_idle

    @property
    def has_reports(self) -> bool:
        """Whether there is a report to fetch, or the end of the producer to be noticed."""
        return bool(
            self.failures or self.finished or (self.acknowledged and not self.in_transaction)
        )

    def partition_counts(self) -> Mapping[str, int]:
        """Count the partitions of each topic that is published to, as the client heard last."""
        found = partition_counts(json.loads(self._statistics)) if self._statistics else {}
        return {name: found[name] for name in self.topics.values() if name in found}

    def send(self, message: Message, token: int, *, topic: str) -> None:
        """Queue a message; the hot path, which runs for every message.

        Args:
            message: the message to send.
            token: names the message in its report.
            topic: the topic's name on the servers.

        Raises:
            BufferError: the queue is full.
            KafkaException: not queued.
            TypeError: not queued; the message cannot be written.
            ValueError: not queued; the message cannot be written.
        """
        if self.is_transactional and not self.in_transaction:
            self._client.begin_transaction()
            self.in_transaction = True
        self._client.produce(
            topic,
            message.value,
            message.key,
            on_delivery=partial(self._note_delivery, token),
            headers=message.headers if type(message.headers) is list else [*message.headers],
        )
        self.pending.add(token)

    def wait(self, timeout: float) -> None:
        """Run librdkafka's callbacks until there is a report, for at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self.poll(0)
        while not self.has_reports and (remaining := deadline - time.monotonic()) > 0:
            self.poll(remaining)

    def take_reports(self) -> list[Report]:
        """Take out the reports. In an open transaction nothing counts as acknowledged."""
        reports: list[Report] = []
        if self.acknowledged and not self.in_transaction:
            reports += map(_make_acknowledged, zip(self.acknowledged))
            self.acknowledged = []
        if self.failures:
            reports += self.failures
            self.failures = []
        return reports

    def commit(self, timeout: float) -> None:
        """Commit the open transaction.

        Args:
            timeout: seconds.

        Raises:
            KafkaException: not committed; unless `retriable()`, the transaction is lost.
        """
        self.is_committing = True
        self._client.commit_transaction(timeout)
        self.is_committing = self.in_transaction = False

    def free(self) -> None:
        """Send nothing more, and fail the pending messages."""
        self.finished = True
        with suppress(KafkaException):
            self._client.purge(blocking=False)
        deadline = time.monotonic() + self._timing.close
        while self.pending and (remaining := deadline - time.monotonic()) > 0:
            self.poll(remaining)
        self.failures += [Failed(token, "given up") for token in sorted(self.pending)]
        self.pending.clear()
        if self.in_transaction:
            self._abort()

    def _abort(self) -> None:
        if not self.fenced:
            with suppress(KafkaException):  # the next producer with the id aborts it too
                self._client.abort_transaction(self._timing.close)
        self.failures += [Failed(token, "its transaction failed") for token in self.acknowledged]
        self.acknowledged = []
        self.in_transaction = False

    def judge(self, token: int, error: KafkaError, *, alone: bool) -> Refused | Failed:
        """Report a message as refused where the error is about the message, otherwise as failed.

        Args:
            token: the message's token.
            error: the answer to its batch.
            alone: no other message was in its batch.
        """
        if error.code() in FENCED:
            self.fenced = True
        fault, reason = fault_of(error), explain(error)
        if fault is Fault.MESSAGE and not alone and error.code() not in TOPIC_REFUSED:
            self.refused_in_company = True
            return Failed(token, f"refused together with others: {reason}", in_company=True)
        return report_of(fault, token, reason)

    def _init_transactions(self) -> None:
        try:
            self._client.init_transactions(self._timing.init_transactions)
        except KafkaException:
            self.free()
            raise

    def poll(self, timeout: float) -> None:
        """Run librdkafka's callbacks; wait up to `timeout` seconds for the first."""
        try:
            self._client.poll(timeout)
        except KafkaException as error:  # a fatal error; further callbacks come with the next poll
            self._note_error(kafka_error(error))

    def _note_delivery(self, token: int, error: KafkaError | None, delivered: Delivered) -> None:
        """Note the outcome of a message; a callback of librdkafka."""
        self.pending.discard(token)
        if error is None:
            self.acknowledged.append(token)
            return
        alone = bool(self._careful_until) or len(delivered) > BATCH_BYTES
        self.failures.append(self.judge(token, error, alone=alone))
        self.finished = True

    def _note_statistics(self, text: str) -> None:
        self._statistics = text  # parsed only when `partition_counts()` is called

    def _note_error(self, error: KafkaError) -> None:
        """Note an error about the connection or the producer; a callback of librdkafka."""
        if error.code() in _AWAY:
            self.away = error
        if error.fatal():
            self.fenced = self.fenced or error.code() in FENCED
            self.finished = True


def producer_config(
    *,
    careful: bool,
    transactional_id: str | None,
    timing: KafkaTiming = DEFAULT_TIMING,
    max_queued_bytes: int = MAX_QUEUED_BYTES,
) -> dict[str, object]:
    """Return the settings of a producer without loss or reordering.

    Args:
        careful: send every message in a batch of its own.
        transactional_id: publish in transactions.
        timing: durations of the client.
        max_queued_bytes: the size of the queue, in whole KiB.
    """
    config: dict[str, object] = {
        "acks": "all",
        "enable.idempotence": True,
        "max.in.flight": 5,
        "partitioner": "murmur2_random",  # as Java and kafka-python: a key's partition is the same
        "message.timeout.ms": 0,  # never
        "request.timeout.ms": milliseconds(timing.request),
        "linger.ms": 0 if careful else LINGER_MS,
        "batch.size": BATCH_BYTES,
        "batch.num.messages": 1 if careful else 10_000,
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "queue.buffering.max.messages": MAX_QUEUED_MESSAGES,
        "queue.buffering.max.kbytes": max(1, max_queued_bytes // 1024),
        "topic.metadata.refresh.interval.ms": milliseconds(timing.refresh),
        "statistics.interval.ms": milliseconds(timing.refresh / 2),
    }
    if transactional_id is None:
        config["enable.gapless.guarantee"] = True
    else:
        config["transactional.id"] = transactional_id
    return config
