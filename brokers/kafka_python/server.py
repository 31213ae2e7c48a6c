"""Ask a Kafka about itself and its topics, and create topics.

kafka-python asks with either client: it is always installed, and its errors tell wrong credentials
and absent topics apart at once.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from kafka import KafkaAdminClient, KafkaProducer, errors
from kafka.admin import ConfigResource

from brokers.kafka.address import KafkaAddress
from brokers.kafka.known_topics import TopicNotShown
from brokers.kafka.timing import DEFAULT_TIMING, KafkaTiming, milliseconds
from brokers.kafka_python.connecting import connect, has_answered
from brokers.kafka_python.faults import CLIENT_ERRORS, connection_error, unavailable

_ABSENT = (errors.UnknownTopicOrPartitionError, errors.InvalidTopicError)


@contextmanager
def admin_client(address: KafkaAddress, *, timeout: float) -> Iterator[KafkaAdminClient]:
    """Open a client for questions; its errors become `BrokerError`.

    Args:
        address: where the servers are.
        timeout: seconds to wait for a connection, and for each answer.
    """
    client, net_client = connect(
        KafkaAdminClient,
        address,
        bootstrap_timeout_ms=milliseconds(timeout),
        request_timeout_ms=milliseconds(timeout),
    )
    try:
        yield client
    except CLIENT_ERRORS as error:
        raise connection_error(address, error, answered=has_answered(net_client)) from error
    finally:
        with suppress(*CLIENT_ERRORS):
            client.close()


class KafkaServer:
    """Ask and change one Kafka; implements `brokers.kafka.known_topics.TopicQuestions`.

    Each call opens a connection of its own, and raises `BrokerUnavailable` where no server answers
    and `BrokerConfigurationError` where a server refuses us.
    """

    def __init__(self, address: KafkaAddress, timing: KafkaTiming = DEFAULT_TIMING) -> None:
        self._address = address
        self._timing = timing

    def check(self) -> None:
        """Reach a server by the URL, and then by the address that it gives for itself."""
        with admin_client(self._address, timeout=self._timing.answer) as client:
            client.describe_cluster()

    def create_missing(
        self, topics: Sequence[str], *, partitions: int, replication_factor: int
    ) -> dict[str, int]:
        """Create the topics that do not exist.

        Args:
            topics: their names on the servers.
            partitions: of each new topic.
            replication_factor: of each new topic.

        Returns:
            How many partitions each topic has that existed before.
        """
        with admin_client(self._address, timeout=self._timing.create) as client:
            existing = set(client.list_topics())
            shape = {"num_partitions": partitions, "replication_factor": replication_factor}
            for topic in dict.fromkeys(topics):
                if topic not in existing:
                    self._create(client, topic, shape)
            if topics:
                timeout_ms = milliseconds(self._timing.create)
                client.wait_for_topics(list(topics), timeout_ms=timeout_ms)
            known = sorted(existing & set(topics))
            described = client.describe_topics(known) if known else []
        return {each["name"]: len(each["partitions"]) for each in described if each["partitions"]}

    def _create(self, client: KafkaAdminClient, topic: str, shape: dict[str, int]) -> None:
        with suppress(errors.TopicAlreadyExistsError):  # by another process, just now
            client.create_topics({topic: shape}, timeout_ms=milliseconds(self._timing.create))

    def partition_count(self, topic: str) -> int:
        """Count a topic's partitions; see `TopicQuestions.partition_count()`."""
        with admin_client(self._address, timeout=self._timing.create_on_demand) as client:
            [found] = client.describe_topics([topic])
            error = errors.for_code(found["error_code"])
            is_absent = error in _ABSENT
            may_appear = is_absent and creates_topics(client)
        if is_absent:
            return self._created_on_demand(topic) if may_appear else 0
        if not found["partitions"]:
            raise TopicNotShown(
                f"Kafka at {self._address} does not show topic {topic}: {error.__name__}"
            )
        return len(found["partitions"])

    def size_limit(self, topic: str) -> int | None:
        """Find a topic's size limit; see `TopicQuestions.size_limit()`."""
        with admin_client(self._address, timeout=self._timing.answer) as client:
            found = setting(client, "TOPIC", topic, "max.message.bytes")
        return int(found) if found else None

    def _created_on_demand(self, topic: str) -> int:
        """Ask as a producer does, which creates the topic where the server is set to do so."""
        timeout_ms = milliseconds(self._timing.create_on_demand)
        producer, _ = connect(
            KafkaProducer, self._address, bootstrap_timeout_ms=timeout_ms, max_block_ms=timeout_ms
        )
        try:
            return len(producer.partitions_for(topic))
        except (errors.KafkaTimeoutError, errors.InvalidTopicError, ValueError):
            return 0
        except CLIENT_ERRORS as error:
            raise unavailable(self._address, error) from error
        finally:
            with suppress(*CLIENT_ERRORS):
                producer.close(timeout=1)


def creates_topics(client: KafkaAdminClient) -> bool:
    """Tell whether the server creates a topic that a producer asks for, or may do so."""
    some_broker = str(client.describe_cluster()["controller_id"])
    return setting(client, "BROKER", some_broker, "auto.create.topics.enable") != "false"


def setting(client: KafkaAdminClient, kind: str, name: str, option: str) -> str:
    """Read a setting of the server.

    Args:
        client: asks for it.
        kind: `TOPIC` or `BROKER`.
        name: the topic's name, or the broker's number.
        option: the setting's name.

    Returns:
        The value; empty where the server does not say: an error about one topic or broker comes as
        an empty answer.
    """
    asked = ConfigResource(kind, name, {option: None})
    found = client.describe_configs([asked], config_filter="all")
    value = found.get(kind.lower(), {}).get(name, {}).get(option, {}).get("value")
    return str(value or "")
