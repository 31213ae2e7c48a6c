"""One librdkafka producer's life.

Invariants, the same as of kafka-python's `Run`:
- A message never expires: it is acknowledged, refused or failed by the broker, or given up by
  `free()`.
- After the first error of any kind the producer is finished, and what it still holds is `Failed`.
  `enable.gapless.guarantee` sees to it inside librdkafka, which else goes on with the messages
  behind a refused one before anybody has heard of it.

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
from brokers.kafka.topic_shapes import HEARD_EVERY_MS
from brokers.librdkafka.connecting import REQUEST_TIMEOUT_MS, make_client
from brokers.librdkafka.faults import FENCED, TOPIC_REFUSED, error_of, explained, fault
from brokers.librdkafka.statistics import partition_counts

LINGER_MS = 2
BATCH_BYTES = 131_072  # well below a topic's default max.message.bytes
MAX_MESSAGE_BYTES = 32 * 1024 * 1024  # above it no broker is asked; below it the topic decides
MAX_QUEUED_MESSAGES = 100_000
MAX_QUEUED_KBYTES = 64 * 1024
CAREFUL_FOR = 60.0
STOP_TIMEOUT = 2.0
INIT_TIMEOUT = 5.0

_AWAY = (KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION)  # noqa: SLF001

_acknowledged: Callable[[tuple[int]], Acknowledged] = partial(tuple.__new__, Acknowledged)
"""`Acknowledged._make`, three times as fast."""


class Run:
    """One producer's life: from its first message to its first error.

    Args:
        careful: every message in a batch of its own, so that a refusal judges it alone.
        transactional_id: with one, what is published is in a transaction until `commit()`.

    Raises:
        BrokerConfigurationError: librdkafka cannot be used so.
        KafkaException: no transactions, because nobody answers or will have any.
    """

    def __init__(
        self, address: KafkaAddress, *, careful: bool = False, transactional_id: str | None = None
    ) -> None:
        self.topics: dict[str, str] = {}  # the topics that exist, with their names on the server
        self.pending: set[int] = set()
        self.acknowledged: list[int] = []
        self.others: list[Refused | Failed] = []
        self.finished = False
        self.fenced = False
        self.refused_in_company = False
        self.away: KafkaError | None = None
        self.is_transactional = transactional_id is not None
        self.in_transaction = False
        self.is_committing = False
        self._careful_until = time.monotonic() + CAREFUL_FOR if careful else 0.0
        self._statistics = ""
        config = producer_config(careful=careful, transactional_id=transactional_id)
        heard = {"error_cb": self._note, "stats_cb": self._hear}
        self.producer = make_client(Producer, address, {**config, **heard})
        if self.is_transactional:
            self._init_transactions()

    @property
    def is_stale(self) -> bool:
        """It has been careful for long enough, and nothing is lost by another one."""
        is_idle = not self.pending and not self.in_transaction
        return 0 < self._careful_until < time.monotonic() and is_idle

    @property
    def has_reports(self) -> bool:
        return bool(self.others or self.finished or (self.acknowledged and not self.in_transaction))

    def partition_counts(self) -> Mapping[str, int]:
        """Partitions of each topic that it publishes to, as its client has heard last."""
        found = partition_counts(json.loads(self._statistics)) if self._statistics else {}
        return {name: found[name] for name in self.topics.values() if name in found}

    def send(self, message: Message, token: int, *, topic: str) -> None:
        """`topic`: its name on the server. This is done for every message: no more than it must.

        Raises:
            BufferError: the queue is full.
            KafkaException, TypeError, ValueError: not queued.
        """
        if self.is_transactional and not self.in_transaction:
            self.producer.begin_transaction()
            self.in_transaction = True
        self.producer.produce(
            topic,
            message.value,
            message.key,
            on_delivery=partial(self._land, token),
            headers=message.headers if type(message.headers) is list else [*message.headers],
        )
        self.pending.add(token)

    def wait(self, timeout: float) -> None:
        """Serve what librdkafka has to say, until there is a report or time is up."""
        deadline = time.monotonic() + timeout
        self._poll(0)
        while not self.has_reports and (remaining := deadline - time.monotonic()) > 0:
            self._poll(remaining)

    def collected(self) -> list[Report]:
        """The reports that are due: acknowledged in an open transaction is not for good."""
        reports: list[Report] = []
        if self.acknowledged and not self.in_transaction:
            reports += map(_acknowledged, zip(self.acknowledged))
            self.acknowledged = []
        if self.others:
            reports += self.others
            self.others = []
        return reports

    def commit(self, timeout: float) -> None:
        """
        Raises:
            KafkaException: not committed; where it is not `retriable()`, it never will be.
        """
        self.is_committing = True
        self.producer.commit_transaction(timeout)
        self.is_committing = self.in_transaction = False

    def free(self) -> None:
        """Send nothing more, and give up what is unacknowledged."""
        self.finished = True
        with suppress(KafkaException):
            self.producer.purge(blocking=False)
        deadline = time.monotonic() + STOP_TIMEOUT
        while self.pending and (remaining := deadline - time.monotonic()) > 0:
            self._poll(remaining)
        self.others += [Failed(token, "given up") for token in sorted(self.pending)]
        self.pending.clear()
        if self.in_transaction:
            self._abort()

    def _abort(self) -> None:
        if not self.fenced:
            with suppress(KafkaException):  # whoever uses the id next aborts it too
                self.producer.abort_transaction(STOP_TIMEOUT)
        self.others += [Failed(token, "its transaction failed") for token in self.acknowledged]
        self.acknowledged = []
        self.in_transaction = False

    def judged(self, token: int, error: KafkaError, *, alone: bool) -> Refused | Failed:
        """Refused where the error is about this message, otherwise Failed."""
        if error.code() in FENCED:
            self.fenced = True
        whose, reason = fault(error), explained(error)
        if whose is Fault.MESSAGE and (alone or error.code() in TOPIC_REFUSED):
            return Refused(token, reason)
        if whose is Fault.MESSAGE:
            self.refused_in_company = True
            return Failed(token, f"refused together with others: {reason}", in_company=True)
        return Failed(token, reason, only_it=whose is Fault.TOPIC, lasting=whose is Fault.OURS)

    def _init_transactions(self) -> None:
        try:
            self.producer.init_transactions(INIT_TIMEOUT)
        except KafkaException:
            self.free()
            raise

    def _poll(self, timeout: float) -> None:
        try:
            self.producer.poll(timeout)
        except KafkaException as error:  # a fatal one; what else there is comes with the next poll
            self._note(error_of(error))

    def _land(self, token: int, error: KafkaError | None, delivered: Delivered) -> None:
        """The fate of one message."""
        self.pending.discard(token)
        if error is None:
            self.acknowledged.append(token)
            return
        alone = bool(self._careful_until) or len(delivered) > BATCH_BYTES
        self.others.append(self.judged(token, error, alone=alone))
        self.finished = True

    def _hear(self, statistics: str) -> None:
        self._statistics = statistics  # read only when somebody asks

    def _note(self, error: KafkaError) -> None:
        """librdkafka tells of what concerns no message of its own."""
        if error.code() in _AWAY:
            self.away = error
        if error.fatal():
            self.fenced = self.fenced or error.code() in FENCED
            self.finished = True


def producer_config(*, careful: bool, transactional_id: str | None) -> dict[str, object]:
    """What makes a producer that loses and reorders nothing."""
    config: dict[str, object] = {
        "acks": "all",
        "enable.idempotence": True,
        "max.in.flight": 5,
        "partitioner": "murmur2_random",  # as Java and kafka-python: a key's partition is the same
        "message.timeout.ms": 0,  # never
        "request.timeout.ms": REQUEST_TIMEOUT_MS,
        "linger.ms": 0 if careful else LINGER_MS,
        "batch.size": BATCH_BYTES,
        "batch.num.messages": 1 if careful else 10_000,
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "queue.buffering.max.messages": MAX_QUEUED_MESSAGES,
        "queue.buffering.max.kbytes": MAX_QUEUED_KBYTES,
        "topic.metadata.refresh.interval.ms": HEARD_EVERY_MS,
        "statistics.interval.ms": HEARD_EVERY_MS // 2,
    }
    if transactional_id is None:
        config["enable.gapless.guarantee"] = True
    else:
        config["transactional.id"] = transactional_id
    return config
