"""Connect kafka-python's clients."""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from kafka.net.compat import KafkaNetClient
from kafka.net.connection import KafkaConnection as Connection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from brokers.kafka.address import KafkaAddress
from brokers.kafka.sizes import RECONNECT_BACKOFF_MAX_MS
from brokers.kafka_python.faults import CLIENT_ERRORS, CREDENTIALS_REFUSED, connection_error

Client = TypeVar("Client")


class _Manager(KafkaConnectionManager):
    """Remember why a connection failed, and whether a server has answered.

    kafka-python only logs the failure, and raises a timeout.

    Attributes:
        failure: why the last connection failed, or why a server refused us.
        is_answered: a server has answered, at the URL's address or at its advertised address.
        is_answered_at_home: a server has answered at its advertised address.
    """

    def __init__(self, net: NetworkSelector, **configs: object) -> None:
        super().__init__(net, **configs)
        self.failure: Exception | None = None
        self.is_answered = False
        self.is_answered_at_home = False

    def get_connection(self, node_id: int | str, *args: object, **options: object) -> Connection:
        connection = super().get_connection(node_id, *args, **options)
        connection.init_future.add_errback(self._note_failure)
        connection.init_future.add_callback(lambda _: self._note_answer(node_id))
        return connection

    def _note_answer(self, node_id: int | str) -> None:
        self.is_answered = True
        # The servers of the URL have a text for a number until a server has named itself.
        self.is_answered_at_home = self.is_answered_at_home or isinstance(node_id, int)

    def _note_failure(self, error: Exception) -> None:
        if not isinstance(self.failure, CREDENTIALS_REFUSED):
            self.failure = error


def connect(
    factory: Callable[..., Client], address: KafkaAddress, **options: object
) -> tuple[Client, KafkaNetClient]:
    """Make a client and wait until it has reached a server.

    kafka-python connects in its constructors; a failed constructor leaves a thread and sockets
    behind, which are freed here.

    Args:
        factory: the client's class.
        address: where the servers are.
        options: the client's settings; `bootstrap_timeout_ms` limits the wait.

    Returns:
        The client, and its network side.

    Raises:
        BrokerUnavailable: no server answers in time.
        BrokerConfigurationError: a server refuses us.
    """
    opened: list[tuple[KafkaNetClient, _Manager]] = []

    def open_net_client(**configs: object) -> KafkaNetClient:
        net = NetworkSelector(**configs)
        manager = _Manager(net, **configs)
        opened.append((KafkaNetClient(net=net, manager=manager), manager))
        return opened[-1][0]

    try:
        client = factory(
            bootstrap_servers=list(address.servers),
            reconnect_backoff_max_ms=RECONNECT_BACKOFF_MAX_MS,
            kafka_client=open_net_client,
            **address.options,
            **options,
        )
    except (*CLIENT_ERRORS, ValueError) as error:
        reason: Exception = error
        for net_client, manager in opened:
            reason = manager.failure or reason
            with suppress(*CLIENT_ERRORS):
                net_client.close()
        answered = any(manager.is_answered and not manager.failure for _, manager in opened)
        raise connection_error(address, reason, answered=answered) from error
    return client, opened[-1][0]


def has_answered(net_client: KafkaNetClient) -> bool:
    """Tell whether a server has ever answered at its advertised address."""
    manager = net_client._manager  # noqa: SLF001 - what `connect()` gave it
    return isinstance(manager, _Manager) and manager.is_answered_at_home


def is_connected(net_client: KafkaNetClient) -> bool:
    """Tell whether there is a connection to any server."""
    return any(net_client.connected(node.node_id) for node in net_client.cluster.brokers())
