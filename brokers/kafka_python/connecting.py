"""Connecting kafka-python's clients, and telling its errors apart."""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from kafka import errors
from kafka.net.compat import KafkaNetClient
from kafka.net.connection import KafkaConnection as Connection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from brokers.errors import (
    BrokerConfigurationError,
    BrokerError,
    BrokerSlow,
    BrokerUnavailable,
    BrokerUnusable,
)
from brokers.kafka.address import KafkaAddress
from brokers.kafka.faults import Fault, advised, fault_of
from saga_runtime.text import error_text, one_line

RECONNECT_BACKOFF_MAX_MS = 1_000

# kafka-python's own event loop also raises RuntimeError and OSError once it is closed or has died.
CLIENT_ERRORS = (errors.KafkaError, RuntimeError, OSError)

# Those of kafka-python's own errors, without a code, that time does not heal.
LASTING = (
    errors.AuthorizationError,
    errors.IllegalArgumentError,
    errors.IllegalStateError,
    errors.KafkaConfigurationError,
    errors.QuotaViolationError,
    errors.UnrecognizedBrokerVersion,
    errors.UnsupportedCodecError,
)

_LATE = (errors.KafkaTimeoutError, errors.RequestTimedOutError)

_CREDENTIALS_REFUSED = (
    errors.SaslAuthenticationFailedError,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
    errors.AuthorizationError,
    errors.KafkaConfigurationError,
)

Client = TypeVar("Client")


class _Manager(KafkaConnectionManager):
    """Remembers why a connection failed, and whether one did not; kafka-python only logs it, and
    says that time is up."""

    failure: Exception | None = None
    is_answered = False
    """A broker has answered, by the URL or by the address that it gives for itself."""
    is_answered_at_home = False
    """By the latter."""

    def get_connection(self, node_id: int | str, *args: object, **options: object) -> Connection:
        connection = super().get_connection(node_id, *args, **options)
        connection.init_future.add_errback(self._note)
        connection.init_future.add_callback(lambda _: self._note_answer(node_id))
        return connection

    def _note_answer(self, node_id: int | str) -> None:
        self.is_answered = True
        self.is_answered_at_home = self.is_answered_at_home or isinstance(node_id, int)

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
        answered = any(manager.is_answered and not manager.failure for _, manager in opened)
        raise connection_error(address, reason, answered=answered) from error
    return client, opened[-1][0]


def has_answered(net_client: KafkaNetClient) -> bool:
    """Whether a broker has ever answered this client by the address that it gives for itself."""
    manager = net_client._manager  # noqa: SLF001 - what `connect()` gave it
    return isinstance(manager, _Manager) and manager.is_answered_at_home


def is_connected(net_client: KafkaNetClient) -> bool:
    """Whether there is a connection to any broker."""
    return any(net_client.connected(node.node_id) for node in net_client.cluster.brokers())


def connection_error(
    address: KafkaAddress, error: Exception, *, answered: bool = False
) -> BrokerError:
    """What an error of a request means.

    Args:
        answered: a broker has answered something else before.
    """
    if isinstance(error, _CREDENTIALS_REFUSED):
        return BrokerConfigurationError(
            f"Kafka at {address} does not let us in: {explained(error)}"
        )
    if isinstance(error, errors.KafkaError) and fault(error) is not Fault.BROKER:
        return BrokerUnusable(f"Kafka at {address} answers, and says: {explained(error)}")
    if answered and isinstance(error, _LATE):
        return BrokerSlow(
            f"a Kafka broker answers at {address}, but not in time: {explained(error)}"
        )
    return BrokerUnavailable(f"no Kafka broker answers at {address}: {explained(error)}")


def unavailable(address: KafkaAddress, error: Exception) -> BrokerUnavailable:
    """What an error means that a connected client raises."""
    kind = BrokerUnavailable if fault(error) is Fault.BROKER else BrokerUnusable
    return kind(f"Kafka at {address}: {explained(error)}")


def fault(error: BaseException) -> Fault:
    """Whose fault an error is, which answers a message or a request."""
    if isinstance(error, errors.BrokerResponseError) and error.errno is not None:
        return fault_of(error.errno)
    if isinstance(error, (TypeError, ValueError)):  # the message could not be written
        return Fault.MESSAGE
    return Fault.OURS if isinstance(error, LASTING) else Fault.BROKER


def explained(error: BaseException) -> str:
    """The error on one line, with its name, and with what to do where that is known."""
    name = type(error).__name__
    text = re.sub(rf"^(\[Error -?\d+\] )?({name}(: )?)?", "", one_line(error_text(error)))
    told = f"{name}: {text}" if text else name
    if isinstance(error, errors.UnsupportedCodecError):
        return f"{told}: install kafka-python[lz4,snappy,zstd]"
    return advised(getattr(error, "errno", None) or 0, told)
