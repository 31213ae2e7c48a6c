"""Choose the Kafka client: librdkafka where it is installed, kafka-python otherwise."""

from importlib.util import find_spec

from brokers.errors import BrokerConfigurationError

KAFKA_PYTHON = "kafka-python"
LIBRDKAFKA = "librdkafka"
CLIENTS = (KAFKA_PYTHON, LIBRDKAFKA)


def check_client_name(name: str) -> None:
    """Accept the name of a client, installed or not; an empty name stands for the default.

    Raises:
        BrokerConfigurationError: there is no such client.
    """
    if name and name not in CLIENTS:
        raise BrokerConfigurationError(
            f"there is no Kafka client {name!r}; SAGAZ_KAFKA_CLIENT takes: {', '.join(CLIENTS)}"
        )


def choose_client(name: str = "") -> str:
    """Choose the client with a name, or without a name the fastest client that is installed.

    Raises:
        BrokerConfigurationError: there is no such client, or its package is not installed.
    """
    check_client_name(name)
    installed = _is_installed("confluent_kafka")
    if name == LIBRDKAFKA and not installed:
        raise BrokerConfigurationError(
            "the Kafka client librdkafka needs the package confluent-kafka: "
            "`uv sync --extra librdkafka`"
        )
    return name or (LIBRDKAFKA if installed else KAFKA_PYTHON)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # a module stands in its place that was not imported from anywhere
        return False
