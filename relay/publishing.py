"""Between the relay and the broker: rows go out as messages, reports come in."""

from collections.abc import Callable, Iterable

from brokers import Broker, BrokerUnavailable, Message, Publisher, Refused
from relay.flight import Flight
from relay.rows import Row

UNWRITABLE = (AttributeError, TypeError, ValueError)


class Sending:
    """Keeps `flight` as the broker's reports say.

    Args:
        message: makes a row's message.
        publisher: by default one of the broker's, made when there is something to send.
    """

    def __init__(
        self,
        broker: Broker,
        flight: Flight,
        *,
        message: Callable[[Row], Message],
        publisher: Publisher | None = None,
    ) -> None:
        self._broker = broker
        self._flight = flight
        self._message = message
        self._publisher = publisher

    def publish(self, batch: Iterable[Row]) -> None:
        """In order; in a lane where one has just been refused, nothing more. What stands here is
        done for every message.

        Raises:
            BrokerUnavailable: from that row on nothing was sent.
        """
        if self._publisher is None:
            self._publisher = self._broker.publisher()
        flight, publish, message_of = self._flight, self._publisher.publish, self._message
        start, halted = flight.start, flight.halted
        for row in batch:
            if row.lane in halted:
                continue
            start(row)
            try:
                message = message_of(row)
            except UNWRITABLE as error:
                reason = f"it cannot be written as a message: {error}"
                flight.land([Refused(row.id, reason, unsent=True)])
                continue
            try:
                queued = publish(message, token=row.id)
            except BrokerUnavailable:
                flight.cancel(row)
                raise
            if not queued:
                self.collect(timeout=0)

    def collect(self, *, timeout: float) -> None:
        """The reports there are; waits up to `timeout` seconds for the first."""
        if self._publisher is not None:
            self._flight.land(self._publisher.reports(timeout=timeout))

    def purge(self) -> None:
        """Send nothing of what is queued: it has failed."""
        if self._publisher is not None:
            self._publisher.purge()
            self.collect(timeout=0)

    def close(self) -> None:
        if self._publisher is not None:
            self._publisher.close()
