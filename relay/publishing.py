"""Send rows to the broker as messages, and take in the reports."""

from collections.abc import Callable, Iterable

from brokers import Broker, BrokerUnavailable, Message, Publisher, Refused
from relay.in_flight import InFlight
from relay.store import Row

UNWRITABLE = (AttributeError, TypeError, ValueError)
"""Errors of headers other than a JSON object of texts."""


class RowPublisher:
    """Publish rows, and keep `in_flight` as the broker's reports say.

    Args:
        write_message: makes a row's message.
        publisher: by default the broker's, made when there is something to send.
    """

    def __init__(
        self,
        broker: Broker,
        in_flight: InFlight,
        *,
        write_message: Callable[[Row], Message],
        publisher: Publisher | None = None,
    ) -> None:
        self._broker = broker
        self._in_flight = in_flight
        self._write_message = write_message
        self._publisher = publisher

    def publish(self, batch: Iterable[Row]) -> None:
        """Publish rows in order; in a lane where a row has just been refused, no more rows.

        Raises:
            BrokerUnavailable: from some row on nothing was sent.
        """
        # The loop runs once for each message: what stands in it is the relay's cost.
        if self._publisher is None:
            self._publisher = self._broker.publisher()
        publish, write_message = self._publisher.publish, self._write_message
        add, halted = self._in_flight.add, self._in_flight.halted
        for row in batch:
            if row.lane in halted:
                continue
            # Noted before it is sent: a report, or the refusal below, has to find the row.
            add(row)
            try:
                message = write_message(row)
            except UNWRITABLE as error:
                reason = f"it cannot be written as a message: {error}"
                self._in_flight.note_reports([Refused(row.id, reason, unsent=True)])
                continue
            try:
                queued = publish(message, token=row.id)
            except BrokerUnavailable:
                self._in_flight.take_back(row)
                raise
            if not queued:  # the lane has to be halted before its next row comes
                self.collect_reports(timeout=0)

    def collect_reports(self, *, timeout: float) -> None:
        """Note the reports there are, after waiting `timeout` seconds at most for the first."""
        if self._publisher is not None:
            self._in_flight.note_reports(self._publisher.reports(timeout=timeout))

    def purge(self) -> None:
        """Send no queued message: count all as failed."""
        if self._publisher is not None:
            self._publisher.purge()
            self.collect_reports(timeout=0)

    def close(self) -> None:
        """Give up queued messages, and free the connections to the broker."""
        if self._publisher is not None:
            self._publisher.close()
