"""One membership of a consumer group: a consumer, and what kafka-python does not notice itself."""

import time
from collections.abc import Sequence
from contextlib import suppress

from kafka import KafkaConsumer
from kafka.net.compat import KafkaNetClient
from kafka.structs import MemberState

from brokers.kafka.address import KafkaAddress
from brokers.kafka.client import CLIENT_ERRORS, connect, is_connected

CONNECT_TIMEOUT_MS = 2_000
REQUEST_TIMEOUT_MS = 10_000  # after it a silent connection is closed, and the request repeated
CLOSE_TIMEOUT_MS = 2_000
SESSION_TIMEOUT_MS = 10_000  # how long a killed member's partitions wait for another
METADATA_TIMEOUT = 2.0
AWAY_AFTER = 2.0
STUCK_AFTER = 30.0


class Member:
    """
    Raises:
        BrokerError: no broker answers, or not to us.
    """

    def __init__(self, address: KafkaAddress, topics: Sequence[str], group: str) -> None:
        self.consumer: KafkaConsumer
        self._net_client: KafkaNetClient
        self.consumer, self._net_client = connect(
            KafkaConsumer,
            address,
            bootstrap_timeout_ms=CONNECT_TIMEOUT_MS,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=SESSION_TIMEOUT_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            metrics_enabled=False,
        )
        self.heard()
        self.consumer.subscribe(topics)
        self._await_metadata(topics)

    def heard(self) -> None:
        """Records came: all is well."""
        self._answered_at = self._settled_at = time.monotonic()

    @property
    def is_away(self) -> bool:
        """Nobody has answered for a while: `poll()` says nothing of that."""
        if is_connected(self._net_client):
            self._answered_at = time.monotonic()
        return time.monotonic() - self._answered_at >= AWAY_AFTER

    @property
    def is_stuck(self) -> bool:
        """kafka-python forgets an assignment for ever where a `poll()` ends while it joins because
        the topics have changed: it neither asks again nor sends heartbeats."""
        if self.consumer.group_metadata().state == MemberState.STABLE:
            self._settled_at = time.monotonic()
        return time.monotonic() - self._settled_at >= STUCK_AFTER

    def close(self) -> None:
        with suppress(*CLIENT_ERRORS):
            self.consumer.close(autocommit=False, timeout_ms=CLOSE_TIMEOUT_MS)
        with suppress(*CLIENT_ERRORS):
            self._net_client.close()

    def _await_metadata(self, topics: Sequence[str]) -> None:
        """Whoever joins before it knows the topics' partitions joins twice, and may be stuck."""
        cluster = self._net_client.cluster
        deadline = time.monotonic() + METADATA_TIMEOUT
        while time.monotonic() < deadline:
            if all(cluster.partitions_for_topic(topic) for topic in topics):
                return
            time.sleep(0.01)
