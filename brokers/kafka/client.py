"""Connecting kafka-python's clients, and telling its errors apart."""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from kafka import errors
from kafka.net.compat import KafkaNetClient
from kafka.net.connection import KafkaConnection as Connection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from brokers.errors import BrokerConfigurationError, BrokerError, BrokerUnavailable
from brokers.kafka.address import KafkaAddress

RECONNECT_BACKOFF_MAX_MS = 1_000

# kafka-python's own event loop also raises RuntimeError and OSError once it is closed or has died.
CLIENT_ERRORS = (errors.KafkaError, RuntimeError, OSError)

# Judged by the broker, or by the client in its place, about this one message.
REFUSALS = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.UnknownTopicOrPartitionError,
    errors.InvalidTopicError,
    errors.InvalidRecordError,
    errors.InvalidTimestampError,
    errors.PolicyViolationError,
    TypeError,
    ValueError,
)

NOT_ALLOWED = errors.TopicAuthorizationFailedError

_CREDENTIALS_REFUSED = (
    errors.SaslAuthenticationFailedError,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
    errors.AuthorizationError,
    errors.KafkaConfigurationError,
)

Client = TypeVar("Client")


class _Manager(KafkaConnectionManager):
    """Remembers why a connection failed; kafka-python only logs it, and says that time is up."""

    failure: Exception | None = None

    def get_connection(self, node_id: int | str, *args: object, **options: object) -> Connection:
        connection = super().get_connection(node_id, *args, **options)
        connection.init_future.add_errback(self._note)
        return connection

    def _note(self, error: Exception) -> None:
        if not isinstance(self.failure, _CREDENTIALS_REFUSED):
            self.failure = error


def connect(
    factory: Callable[..., Client], address: KafkaAddress, **options: object
) -> tuple[Client, KafkaNetClient]:
    """A client that has reached a broker, and its network side.

    kafka-python connects in its constructors, and where that fails it leaves a thread and sockets
    behind; here they are freed.

    Raises:
        BrokerUnavailable: no broker answers within `bootstrap_timeout_ms`.
        BrokerConfigurationError: it answers, but not to us.
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
        raise connection_error(address, reason) from error
    return client, opened[-1][0]


def is_connected(net_client: KafkaNetClient) -> bool:
    """Whether there is a connection to any broker."""
    return any(net_client.connected(node.node_id) for node in net_client.cluster.brokers())


def connection_error(address: KafkaAddress, error: Exception) -> BrokerError:
    """What an error while connecting means."""
    if isinstance(error, _CREDENTIALS_REFUSED):
        return BrokerConfigurationError(
            f"Kafka at {address} does not let us in: {explained(error)}"
        )
    return BrokerUnavailable(f"no Kafka broker answers at {address}: {explained(error)}")


def explained(error: BaseException) -> str:
    """The error on one line, with its name."""
    name = type(error).__name__
    text = " ".join(str(error.args[0]).split()) if error.args and error.args[0] else ""
    return f"{name}: {text.removeprefix(f'{name}: ')}" if text else name
