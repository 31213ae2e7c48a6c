"""Publishing to Kafka through librdkafka: one producer after another.

It is here for its speed: `benchmarks/producing.py` measures it. What is done for every message is
in the first lines of `publish()`, in `Run.send()` and in `Run`'s callback, and nowhere else.
"""

import time

from confluent_kafka import KafkaError, KafkaException

from brokers.base import Acknowledged, Failed, Message, Refused, Report
from brokers.errors import (
    BrokerConfigurationError,
    BrokerUnavailable,
    BrokerUnusable,
    Fenced,
    QueueFull,
)
from brokers.kafka.address import KafkaAddress
from brokers.kafka.faults import Fault
from brokers.kafka.known_topics import KnownTopics
from brokers.kafka.stall import Stall
from brokers.kafka.topic_shapes import TopicWatch
from brokers.librdkafka.faults import FENCED, error_of, explained, fault
from brokers.librdkafka.producer import BATCH_BYTES, Run
from saga_runtime.logs import get_logger
from saga_runtime.outage import Outage

logger = get_logger(__name__)

BAD_NEWS = "a message before it did not arrive"


class LibrdkafkaPublisher:
    def __init__(
        self,
        address: KafkaAddress,
        topics: KnownTopics,
        *,
        watch: TopicWatch,
        transactional_id: str | None = None,
    ) -> None:
        self._address = address
        self._transactional_id = address.named(transactional_id) if transactional_id else None
        self._run: Run | None = None
        self._reports: list[Report] = []
        self._topics = topics
        self._watch = watch
        self._careful = False
        self._fenced = False
        self._outage = Outage(f"the broker kafka://{address}", logger=logger)
        self._stall = Stall(self._outage)

    @property
    def is_ready(self) -> bool:
        return self._run is not None and not self._run.finished

    def take_over(self) -> None:
        if self._fenced:
            raise self._fence()
        self._opened()

    def publish(self, message: Message, *, token: int) -> bool:
        run = self._run
        if run is None or run.finished or run.is_committing or message.topic not in run.topics:
            run = self._prepared(message.topic, token)
            if run is None:
                return False
        if len(message.value) > BATCH_BYTES:
            refused = self._topics.over_limit(run.topics[message.topic], message, token)
            if refused is not None:
                self._reports.append(refused)
                return False
        try:
            run.send(message, token, topic=run.topics[message.topic])
        except BufferError:
            self._send_into_full_queue(run, message, token)
        except KafkaException as error:
            self._not_sent(run, token, error_of(error))
            return False
        except (TypeError, ValueError) as error:
            self._reports.append(Refused(token, explained(error), unsent=True))
            return False
        return True

    def reports(self, *, timeout: float) -> list[Report]:
        run = self._run
        if run is not None:
            run.wait(0 if self._reports else timeout)
            if run.finished or run.is_stale:
                self.purge()
        elif not self._reports:
            time.sleep(timeout)
        reports = self._collected()
        if run is not None:
            self._stall.note(is_waiting=bool(run.pending) and not reports and run.away is None)
            if run.away is not None or self._outage.going_on:
                self._look_after(run, reports)
            self._watch.look(run.partition_counts)
        return reports

    def commit(self, *, timeout: float) -> None:
        run = self._run
        if self._fenced:
            raise self._fence()
        if run is None or not run.in_transaction:
            return
        run.wait(0)
        if not run.finished:
            try:
                run.commit(timeout)
            except KafkaException as error:
                self._not_committed(run, error_of(error))
        if run.finished:
            self.purge()
        if self._fenced:
            raise self._fence()

    def purge(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.free()
            self._reports += run.collected()
            self._careful = self._careful or run.refused_in_company
            self._fenced = self._fenced or run.fenced

    def close(self) -> None:
        self.purge()

    def _prepared(self, topic: str, token: int) -> Run | None:
        """A producer that may be handed a message for that topic; without one, its fate is known
        already."""
        run = self._run
        if self._fenced:
            raise self._fence()
        if run is not None and run.finished:
            # The caller has yet to hear what failed with it: until then a later message of its key
            # must not go out by another producer.
            self._reports.append(Failed(token, BAD_NEWS))
            return None
        if run is not None and run.is_committing:
            raise BrokerUnavailable("a commit has not ended: call commit() again")
        name = self._address.named(topic)
        if run is None or topic not in run.topics:
            found = self._topics.partitions(name, token)
            if not isinstance(found, int):
                self._reports.append(found)
                return None
        run = self._opened()
        run.topics[topic] = name
        return run

    def _opened(self) -> Run:
        if self._run is None:
            careful, self._careful = self._careful, False
            try:
                self._run = Run(
                    self._address, careful=careful, transactional_id=self._transactional_id
                )
            except BrokerConfigurationError as error:
                raise BrokerUnusable(str(error)) from error
            except KafkaException as error:
                raise self._unavailable(error_of(error)) from error
        return self._run

    def _send_into_full_queue(self, run: Run, message: Message, token: int) -> None:
        """What has been acknowledged is in the queue until somebody asks for the reports."""
        run.wait(0)
        try:
            run.send(message, token, topic=run.topics[message.topic])
        except (BufferError, KafkaException) as error:
            raise QueueFull(
                f"{len(run.pending)} messages wait for {self._address} already"
            ) from error

    def _not_sent(self, run: Run, token: int, error: KafkaError) -> None:
        """librdkafka did not queue it: it judged the message, or has ended."""
        report = run.judged(token, error, alone=True)
        if isinstance(report, Failed):
            run.finished = True
            if error.fatal():
                report = Failed(token, BAD_NEWS)
        self._reports.append(report)

    def _not_committed(self, run: Run, error: KafkaError) -> None:
        if error.retriable() and not error.txn_requires_abort():
            raise self._unavailable(error)
        run.fenced = run.fenced or error.code() in FENCED
        run.finished = True

    def _collected(self) -> list[Report]:
        reports, self._reports = self._reports, []
        if self._run is not None:
            reports += self._run.collected()
        return reports

    def _look_after(self, run: Run, reports: list[Report]) -> None:
        """Tell of an outage, which librdkafka waits for the end of."""
        if any(isinstance(report, Acknowledged) for report in reports):
            run.away = None
            self._outage.over()
        elif run.pending and run.away is not None:
            self._outage.failed(
                f"what is queued waits until it is back: {explained(run.away)}",
                answers=fault(run.away) is Fault.OURS,
            )

    def _unavailable(self, error: KafkaError) -> BrokerUnavailable:
        kind = BrokerUnusable if fault(error) is Fault.OURS else BrokerUnavailable
        return kind(f"Kafka at {self._address}: {explained(error)}")

    def _fence(self) -> Fenced:
        return Fenced(f"another producer took over the transactions of {self._transactional_id}")
