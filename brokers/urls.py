"""Choose a broker by its URL: a new broker is registered here, in `_BROKERS`."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from brokers.base import Broker
from brokers.errors import BrokerConfigurationError
from brokers.kafka.clients import check_client_name, choose_client
from brokers.kafka.timing import DEFAULT_TIMING, KafkaTiming
from saga_runtime.urls import redacted


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """What a broker is made from, besides the parts of its URL: its name, and Kafka's options."""

    name: str
    partitions: int
    replication_factor: int
    client: str
    timing: KafkaTiming


def _memory(parts: SplitResult, _options: _Options) -> Broker:
    from brokers.memory import memory_broker

    return memory_broker(parts.netloc)


def _kafka(parts: SplitResult, options: _Options) -> Broker:
    try:
        from brokers.kafka.address import parse_address
        from brokers.kafka_broker import KafkaBroker
    except ImportError as error:
        raise BrokerConfigurationError(
            f"{options.name} needs the package kafka-python: {error}"
        ) from error
    return KafkaBroker(
        parse_address(parts),
        name=options.name,
        partitions=options.partitions,
        replication_factor=options.replication_factor,
        client=choose_client(options.client),
        timing=options.timing,
    )


@dataclass(frozen=True, slots=True)
class _Scheme:
    """How the URLs of a broker look, for error messages, and what makes the broker."""

    form: str
    make: Callable[[SplitResult, _Options], Broker]


# Each function imports its broker when called: a process pays only for the client that it uses.
_BROKERS = {
    "memory": _Scheme("memory://", _memory),
    "kafka": _Scheme("kafka://host:port[,host:port…]", _kafka),
}


def broker_from_url(
    url: str,
    *,
    partitions: int = 12,
    replication_factor: int = 1,
    client: str = "",
    timing: KafkaTiming = DEFAULT_TIMING,
) -> Broker:
    """Make the broker that a URL names; connects to nothing.

    Args:
        url: `memory://` or `kafka://host:port[,host:port…]`; Kafka also takes `user:password@` and
            a few options, see `brokers.kafka.address`.
        partitions: of topics that `ensure_topics` creates on Kafka.
        replication_factor: of topics that `ensure_topics` creates on Kafka.
        client: for Kafka, `kafka-python` or `librdkafka`; by default librdkafka where it is
            installed.
        timing: durations of Kafka's clients.

    Raises:
        BrokerConfigurationError: unknown scheme, missing package or unusable address.
    """
    check_client_name(client)
    parts = _split(url)
    scheme = _BROKERS.get(parts.scheme)
    if scheme is None:
        forms = ", ".join(each.form for each in _BROKERS.values())
        raise BrokerConfigurationError(
            f"the broker URL {redacted(url)!r} has an unknown scheme; use one of: {forms}"
        )
    return scheme.make(
        parts,
        _Options(
            name=redacted(url),
            partitions=partitions,
            replication_factor=replication_factor,
            client=client,
            timing=timing,
        ),
    )


def require_shared(broker: Broker) -> None:
    """Accept a broker that several processes can share; for a command that is one of them.

    Raises:
        BrokerConfigurationError: messages never leave this process.
    """
    if broker.in_process:
        raise BrokerConfigurationError(
            f"{broker.name} lives inside one process, so this command would reach nobody: "
            "use `manage.py up`, or set SAGAZ_BROKER_URL=kafka://host:port"
        )


def require_transactions(broker: Broker) -> None:
    """Accept a broker with transactions.

    Raises:
        BrokerConfigurationError: the broker has none.
    """
    if not broker.has_transactions:
        raise BrokerConfigurationError(
            f"{broker.name} has no transactions: they need the Kafka client librdkafka "
            "(`uv sync --extra librdkafka`, and SAGAZ_KAFKA_CLIENT empty)"
        )


def _split(url: str) -> SplitResult:
    """Split a URL as `urlsplit()` does, but accept several hosts, also with one in brackets."""
    place = re.search(r"(?<=://)[^/?#]*", url)
    hosts = place[0] if place else ""
    try:
        return urlsplit(url.replace(f"://{hosts}", "://", 1))._replace(netloc=hosts)
    except ValueError as error:
        raise BrokerConfigurationError(
            f"the broker URL {redacted(url)!r} cannot be read: {error}"
        ) from error
