"""Making confluent-kafka's clients."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka import KafkaException

from brokers.errors import BrokerConfigurationError
from brokers.kafka.address import KafkaAddress
from brokers.librdkafka.faults import explained
from saga_runtime.logs import get_logger

logger = get_logger(__name__)

RECONNECT_BACKOFF_MAX_MS = 1_000
REQUEST_TIMEOUT_MS = 10_000  # after it a silent connection is closed, and the request repeated

# kafka-python's names, which `KafkaAddress.options` holds, in librdkafka's.
_NAMES = {
    "security_protocol": "security.protocol",
    "sasl_mechanism": "sasl.mechanism",
    "sasl_plain_username": "sasl.username",
    "sasl_plain_password": "sasl.password",
    "ssl_cafile": "ssl.ca.location",
    "client_id": "client.id",
}

Client = TypeVar("Client")


class _Quietly:
    """Where librdkafka logs to. It writes a line for each try to connect, and calls the end of a
    producer an emergency; whoever uses this package hears of either from us, in one line."""

    def log(self, _level: int, text: str, *arguments: object) -> None:
        logger.debug(text, *arguments)


def connection_config(address: KafkaAddress) -> dict[str, Any]:
    """How to reach the servers, in librdkafka's terms."""
    return {
        "bootstrap.servers": ",".join(address.servers),
        "reconnect.backoff.max.ms": RECONNECT_BACKOFF_MAX_MS,
        "socket.timeout.ms": REQUEST_TIMEOUT_MS,
        "log.connection.close": False,
        "allow.auto.create.topics": True,
        **{_NAMES[name]: value for name, value in address.options.items()},
    }


def make_client(
    factory: Callable[..., Client], address: KafkaAddress, config: Mapping[str, Any]
) -> Client:
    """A client that connects in the background.

    Raises:
        BrokerConfigurationError: librdkafka takes the configuration for wrong, for instance a file
            of certificates that holds none.
    """
    try:
        return factory({**connection_config(address), **config}, logger=_Quietly())
    except (KafkaException, ValueError, TypeError) as error:
        raise BrokerConfigurationError(
            f"librdkafka cannot be used with Kafka at {address}: {explained(error)}"
        ) from error
