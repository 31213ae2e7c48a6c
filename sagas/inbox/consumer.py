"""Receive commands from the broker until asked to stop."""

import threading
from collections.abc import Callable, Sequence

from django.db import connection

from brokers import Broker, BrokerUnavailable, Subscription
from saga_runtime.backoff import Backoff
from saga_runtime.database_errors import AWAY
from saga_runtime.logs import get_logger
from saga_runtime.outage import Outage
from sagas.inbox import accepting
from sagas.inbox.places import Worker
from sagas.inbox.sequences import Sequences
from sagas.inbox.undecided import CommandUndecided, Undecided

logger = get_logger(__name__)

RECEIVE_TIMEOUT = 0.25
"""Seconds to wait for records; also how long a stop may take."""
BATCH_SIZE = 500
"""Records to accept in the same transaction, at most."""


class SagaConsumer:
    """Receive commands and put them into the inbox, until asked to stop.

    Args:
        broker: where the commands come from.
        topics: the topics to receive.
        group: the consumer group, whose members share the topics' partitions.
        worker: runs new sagas in this process.
        alive: called in each round.
        undecided: limits the tries of commands that cannot be judged.
        backoff: the pauses while the broker or the database is away; by default `Outage`'s.

    Attributes:
        is_joined: whether the group has accepted this consumer as a member.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        topics: Sequence[str],
        group: str,
        worker: Worker | None = None,
        alive: Callable[[], None] = lambda: None,
        undecided: Undecided | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._broker = broker
        self._topics = topics
        self._group = group
        self._worker = worker
        self._alive = alive
        self._sequences = Sequences()
        self._undecided = undecided or Undecided()
        self.is_joined = False
        self._broker_outage = Outage(f"the broker {broker.name}", logger=logger, backoff=backoff)
        self._database_outage = Outage("the database", logger=logger, backoff=backoff)

    def run(self, stop: threading.Event) -> None:
        """Receive until `stop` is set; an outage pauses, and the batch is received again."""
        subscription: Subscription | None = None
        try:
            while not stop.is_set():
                self._alive()
                try:
                    subscription = subscription or self._broker.subscribe(
                        self._topics, group=self._group
                    )
                    self._receive_once(subscription)
                except BrokerUnavailable as error:
                    stop.wait(self._broker_outage.failed(error))
                except CommandUndecided as error:
                    logger.warning("%s", error)
                    # The broker delivers again to a new subscription only.
                    _close(subscription)
                    subscription = None
                    stop.wait(error.pause)
                except AWAY as error:
                    connection.close()
                    # What was received and not stored comes again to a new subscription.
                    _close(subscription)
                    subscription = None
                    stop.wait(self._database_outage.failed(error))
        finally:
            _close(subscription)
            connection.close()

    def _receive_once(self, subscription: Subscription) -> None:
        records = subscription.receive(timeout=RECEIVE_TIMEOUT, limit=BATCH_SIZE)
        self._broker_outage.over()
        self.is_joined = self.is_joined or subscription.is_joined
        if not records:
            return
        new = accepting.accept(
            records,
            consumer=self._group,
            sequences=self._sequences,
            undecided=self._undecided,
            worker=self._worker,
        )
        self._database_outage.over()
        # Only now: what is delivered twice changes nothing, what is committed is never seen again.
        subscription.commit(records)
        logger.debug("accepted %d record(s), %d new saga(s)", len(records), new)


def _close(subscription: Subscription | None) -> None:
    if subscription is not None:
        subscription.close()
