import re
from urllib.parse import SplitResult, urlsplit

from brokers.base import Broker
from brokers.errors import BrokerConfigurationError
from brokers.kafka.clients import chosen_client, known_client
from saga_runtime.urls import redacted

SCHEMES = ("memory://", "kafka://host:port[,host:port…]")


def broker_from_url(
    url: str, *, partitions: int = 12, replication_factor: int = 1, client: str = ""
) -> Broker:
    """The broker that a URL names; connects to nothing.

    Args:
        url: one of `SCHEMES`; Kafka also takes `user:password@` and a few options, see
            `brokers.kafka.address`.
        partitions: of topics that `ensure_topics` creates on Kafka.
        replication_factor: of topics that `ensure_topics` creates on Kafka.
        client: for Kafka, `kafka-python` or `librdkafka`; by default librdkafka where it is
            installed.

    Raises:
        BrokerConfigurationError: unknown scheme, missing driver or unusable address.
    """
    known_client(client)
    parts = _split(url)
    if parts.scheme == "memory":
        from brokers.memory import memory_broker

        return memory_broker(parts.netloc)
    if parts.scheme == "kafka":
        return _kafka(parts, redacted(url), partitions, replication_factor, client)
    raise BrokerConfigurationError(
        f"the broker URL {redacted(url)!r} has an unknown scheme; use one of: {', '.join(SCHEMES)}"
    )


def _kafka(
    parts: SplitResult, name: str, partitions: int, replication_factor: int, client: str
) -> Broker:
    try:
        from brokers.kafka.address import parse_address
        from brokers.kafka_broker import KafkaBroker
    except ImportError as error:
        raise BrokerConfigurationError(f"{name} needs the package kafka-python: {error}") from error
    return KafkaBroker(
        parse_address(parts),
        name=name,
        partitions=partitions,
        replication_factor=replication_factor,
        client=chosen_client(client),
    )


def require_shared(broker: Broker) -> None:
    """For a command that is one process of several.

    Raises:
        BrokerConfigurationError: messages never leave this process.
    """
    if broker.in_process:
        raise BrokerConfigurationError(
            f"{broker.name} lives inside one process, so this command would reach nobody: "
            "use `manage.py up`, or set SAGAZ_BROKER_URL=kafka://host:port"
        )


def require_transactions(broker: Broker) -> None:
    """
    Raises:
        BrokerConfigurationError: it has none.
    """
    if not broker.has_transactions:
        raise BrokerConfigurationError(
            f"{broker.name} has no transactions: they need the Kafka client librdkafka "
            "(`uv sync --extra librdkafka`, and SAGAZ_KAFKA_CLIENT empty)"
        )


def _split(url: str) -> SplitResult:
    """`urlsplit()`, without its opinion about hosts: of several, one in brackets is no error."""
    place = re.search(r"(?<=://)[^/?#]*", url)
    hosts = place[0] if place else ""
    try:
        return urlsplit(url.replace(f"://{hosts}", "://", 1))._replace(netloc=hosts)
    except ValueError as error:
        raise BrokerConfigurationError(
            f"the broker URL {redacted(url)!r} cannot be read: {error}"
        ) from error
