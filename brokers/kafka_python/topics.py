"""What is asked of Kafka about itself: is it there, which topics does it have."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from kafka import KafkaAdminClient, KafkaProducer, errors
from kafka.admin import ConfigResource

from brokers.errors import BrokerUnavailable
from brokers.kafka.address import KafkaAddress
from brokers.kafka_python.connecting import (
    CLIENT_ERRORS,
    connect,
    connection_error,
    has_answered,
    unavailable,
)

ANSWER_TIMEOUT_MS = 4_000
CREATE_TIMEOUT_MS = 10_000
AUTO_CREATE_TIMEOUT_MS = 1_000


class NotShown(BrokerUnavailable):
    """Raised when the broker answers, but does not show us that topic."""


_ABSENT = (errors.UnknownTopicOrPartitionError, errors.InvalidTopicError)


@contextmanager
def admin(address: KafkaAddress, *, timeout_ms: int) -> Iterator[KafkaAdminClient]:
    """A client for questions; errors leave it as BrokerError."""
    client, net_client = connect(
        KafkaAdminClient,
        address,
        bootstrap_timeout_ms=timeout_ms,
        request_timeout_ms=timeout_ms,
    )
    try:
        yield client
    except CLIENT_ERRORS as error:
        raise connection_error(address, error, answered=has_answered(net_client)) from error
    finally:
        with suppress(*CLIENT_ERRORS):
            client.close()


def check(address: KafkaAddress) -> None:
    """Reach a broker by the URL, and then by the address that it gives for itself."""
    with admin(address, timeout_ms=ANSWER_TIMEOUT_MS) as client:
        client.describe_cluster()


def create_missing(
    address: KafkaAddress, topics: Sequence[str], *, partitions: int, replication_factor: int
) -> dict[str, int]:
    """Create the topics that are missing; returns how many partitions each of the others has."""
    with admin(address, timeout_ms=CREATE_TIMEOUT_MS) as client:
        existing = set(client.list_topics())
        for topic in dict.fromkeys(topics):
            if topic not in existing:
                _create(client, topic, partitions, replication_factor)
        if topics:
            client.wait_for_topics(list(topics), timeout_ms=CREATE_TIMEOUT_MS)
        known = sorted(existing & set(topics))
        described = client.describe_topics(known) if known else []
    return {each["name"]: len(each["partitions"]) for each in described if each["partitions"]}


def _create(client: KafkaAdminClient, topic: str, partitions: int, replication_factor: int) -> None:
    shape = {"num_partitions": partitions, "replication_factor": replication_factor}
    with suppress(errors.TopicAlreadyExistsError):  # by another process, just now
        client.create_topics({topic: shape}, timeout_ms=CREATE_TIMEOUT_MS)


def partition_count(address: KafkaAddress, topic: str) -> int:
    """How many partitions the topic has; 0 where the broker says that there is no such topic, and
    does not create it either. Another broker may know one that was made just now.

    Raises:
        BrokerUnavailable: it says nothing.
        NotShown: it will not say.
    """
    with admin(address, timeout_ms=AUTO_CREATE_TIMEOUT_MS) as client:
        [found] = client.describe_topics([topic])
        error = errors.for_code(found["error_code"])
        is_absent = error in _ABSENT
        may_appear = is_absent and _creates_topics(client)
    if is_absent:
        return _created_on_demand(address, topic) if may_appear else 0
    if not found["partitions"]:
        raise NotShown(f"Kafka at {address} does not show topic {topic}: {error.__name__}")
    return len(found["partitions"])


def size_limit(address: KafkaAddress, topic: str) -> int | None:
    """The bytes that a batch for the topic may have; None where the broker does not say, because
    we may not ask.

    Raises:
        BrokerUnavailable: nobody answers.
    """
    with admin(address, timeout_ms=ANSWER_TIMEOUT_MS) as client:
        found = _config(client, "TOPIC", topic, "max.message.bytes")
    return int(found) if found else None


def _creates_topics(client: KafkaAdminClient) -> bool:
    """Whether a producer that asks for a topic makes it. Where we may not know, it might."""
    some_broker = str(client.describe_cluster()["controller_id"])
    return _config(client, "BROKER", some_broker, "auto.create.topics.enable") != "false"


def _config(client: KafkaAdminClient, kind: str, name: str, option: str) -> str:
    """Empty where the broker does not say: errors about one resource come as an empty answer."""
    asked = ConfigResource(kind, name, {option: None})
    found = client.describe_configs([asked], config_filter="all")
    value = found.get(kind.lower(), {}).get(name, {}).get(option, {}).get("value")
    return str(value or "")


def _created_on_demand(address: KafkaAddress, topic: str) -> int:
    """Ask as a producer does, which creates the topic where the broker is set to do so."""
    producer, _ = connect(
        KafkaProducer,
        address,
        bootstrap_timeout_ms=AUTO_CREATE_TIMEOUT_MS,
        max_block_ms=AUTO_CREATE_TIMEOUT_MS,
    )
    try:
        return len(producer.partitions_for(topic))
    except (errors.KafkaTimeoutError, errors.InvalidTopicError, ValueError):
        return 0
    except CLIENT_ERRORS as error:
        raise unavailable(address, error) from error
    finally:
        with suppress(*CLIENT_ERRORS):
            producer.close(timeout=1)
