"""Which Kafka client is used: librdkafka where it is installed, kafka-python otherwise."""

from importlib.util import find_spec

from brokers.errors import BrokerConfigurationError

KAFKA_PYTHON = "kafka-python"
LIBRDKAFKA = "librdkafka"
CLIENTS = (KAFKA_PYTHON, LIBRDKAFKA)


def known_client(name: str) -> str:
    """
    Raises:
        BrokerConfigurationError: there is no such client.
    """
    if name and name not in CLIENTS:
        raise BrokerConfigurationError(
            f"there is no Kafka client {name!r}; SAGAZ_KAFKA_CLIENT takes: {', '.join(CLIENTS)}"
        )
    return name


def chosen_client(name: str = "") -> str:
    """The client of that name; without one, the fastest that is installed.

    Raises:
        BrokerConfigurationError: unknown, or not installed.
    """
    installed = _is_installed("confluent_kafka")
    if known_client(name) == LIBRDKAFKA and not installed:
        raise BrokerConfigurationError(
            "the Kafka client librdkafka needs the package confluent-kafka: "
            "`uv sync --extra librdkafka`"
        )
    return name or (LIBRDKAFKA if installed else KAFKA_PYTHON)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # what stands in its place was not imported from anywhere
        return False
