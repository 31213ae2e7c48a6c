"""Make confluent-kafka's clients, which connect in the background."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka import KafkaException

from brokers.errors import BrokerConfigurationError
from brokers.kafka.address import KafkaAddress
from brokers.kafka.sizes import RECONNECT_BACKOFF_MAX_MS
from brokers.kafka.timing import DEFAULT_TIMING, KafkaTiming, milliseconds
from brokers.librdkafka.faults import explain
from saga_runtime.logs import get_logger

logger = get_logger(__name__)

# librdkafka's name for each of kafka-python's names, by which `KafkaAddress.options` goes.
_NAMES = {
    "security_protocol": "security.protocol",
    "sasl_mechanism": "sasl.mechanism",
    "sasl_plain_username": "sasl.username",
    "sasl_plain_password": "sasl.password",
    "ssl_cafile": "ssl.ca.location",
    "client_id": "client.id",
}

Client = TypeVar("Client")


class _DebugLogger:
    """Log librdkafka's lines for debugging only.

    librdkafka writes a line for each try to connect, and calls the end of a producer an emergency;
    callers of this package read of either in one line of ours.
    """

    def log(self, _level: int, text: str, *arguments: object) -> None:
        logger.debug(text, *arguments)


def connection_config(
    address: KafkaAddress, timing: KafkaTiming = DEFAULT_TIMING
) -> dict[str, Any]:
    """Return the settings that reach the servers, by librdkafka's names."""
    return {
        "bootstrap.servers": ",".join(address.servers),
        "reconnect.backoff.max.ms": RECONNECT_BACKOFF_MAX_MS,
        "socket.timeout.ms": milliseconds(timing.request),
        "log.connection.close": False,
        "allow.auto.create.topics": True,
        **{_NAMES[name]: value for name, value in address.options.items()},
    }


def make_client(
    factory: Callable[..., Client],
    address: KafkaAddress,
    config: Mapping[str, Any],
    *,
    timing: KafkaTiming = DEFAULT_TIMING,
) -> Client:
    """Make a client that connects in the background.

    Args:
        factory: the client's class.
        address: where the servers are.
        config: further settings, by librdkafka's names.
        timing: durations of the connection.

    Raises:
        BrokerConfigurationError: librdkafka refuses the configuration, for instance a file of
            certificates that holds none.
    """
    try:
        return factory({**connection_config(address, timing), **config}, logger=_DebugLogger())
    except (KafkaException, ValueError, TypeError) as error:
        raise BrokerConfigurationError(
            f"librdkafka cannot be used with Kafka at {address}: {explain(error)}"
        ) from error
