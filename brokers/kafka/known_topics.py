"""Asking for a topic before a producer learns of it: a producer that is handed one that does not
exist asks for it again and again, or says so only half a minute later."""

import time

from brokers.errors import BrokerError, BrokerUnavailable
from brokers.kafka import topics
from brokers.kafka.address import KafkaAddress

ABSENCE_REMEMBERED = 5.0


class KnownTopics:
    def __init__(self, address: KafkaAddress) -> None:
        self._address = address
        self._absent_until: dict[str, float] = {}

    def partitions(self, topic: str) -> int:
        """How many the topic has; 0 where there is none, or was none a moment ago.

        Raises:
            BrokerUnavailable: nobody says.
        """
        if time.monotonic() < self._absent_until.get(topic, 0):
            return 0
        count = self.partitions_now(topic)
        if not count:
            self._absent_until[topic] = time.monotonic() + ABSENCE_REMEMBERED
        return count

    def partitions_now(self, topic: str) -> int:
        """
        Raises:
            BrokerUnavailable: nobody says.
        """
        try:
            return topics.partition_count(self._address, topic)
        except BrokerError as error:
            raise BrokerUnavailable(str(error)) from error
