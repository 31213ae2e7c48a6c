import threading
from collections.abc import Callable, Sequence

from django.db import connection

from brokers import Broker, BrokerUnavailable, Subscription
from saga_runtime.database_errors import AWAY
from saga_runtime.logs import get_logger
from saga_runtime.outage import Outage
from sagas.inbox import accepting
from sagas.inbox.sequences import Sequences
from sagas.inbox.undecided import CommandUndecided, Undecided

logger = get_logger(__name__)

RECEIVE_TIMEOUT = 0.25
BATCH_SIZE = 500


class SagaConsumer:
    """Receives commands and puts them into the inbox, until told to stop.

    Args:
        broker: where the commands come from.
        topics, group: what to receive, shared with the other consumers of the group.
        on_new: called after a batch that made new sagas.
        alive: called in each round.
        undecided: how long a command is tried that cannot be judged.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        topics: Sequence[str],
        group: str,
        on_new: Callable[[], None] = lambda: None,
        alive: Callable[[], None] = lambda: None,
        undecided: Undecided | None = None,
    ) -> None:
        self._broker = broker
        self._topics = topics
        self._group = group
        self._on_new = on_new
        self._alive = alive
        self._sequences = Sequences()
        self._undecided = undecided or Undecided()
        self.is_joined = False
        """Its group has taken it in, so that commands reach it."""
        self._broker_outage = Outage(f"the broker {broker.name}", logger=logger)
        self._database_outage = Outage("the database", logger=logger)

    def run(self, stop: threading.Event) -> None:
        """Receive until `stop` is set. An outage pauses, and the batch is received again."""
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
        )
        self._database_outage.over()
        subscription.commit(records)
        logger.debug("accepted %d record(s), %d new saga(s)", len(records), new)
        if new:
            self._on_new()


def _close(subscription: Subscription | None) -> None:
    if subscription is not None:
        subscription.close()
