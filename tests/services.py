"""PostgreSQL and Kafka for tests, one of each per run: running servers that TEST_DATABASE_URL and
TEST_BROKER_URL name, or containers of POSTGRES_IMAGE and KAFKA_IMAGE.

A pytest plugin: `pytest_plugins = ["tests.services"]`.
"""

import gc
import os
import socket
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import pytest
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from brokers import BrokerUnavailable, broker_from_url
from brokers.kafka_broker import KafkaBroker
from brokers.kafka_python.server import admin_client
from tests.ports import free_port
from tests.shared import NotHereError, Shared, Things, things

START_TIMEOUT = 290.0
KAFKA_PORT = 9092
KAFKA_CONFIG = Path(__file__).parents[1] / "docker" / "kafka"


@pytest.fixture(scope="session")
def postgres_server_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database on a running PostgreSQL, as a superuser."""
    return shared_server(request.config, "postgres", running_postgres)


@pytest.fixture(scope="session")
def kafka_server_url(request: pytest.FixtureRequest) -> str:
    """The kafka:// URL of a running broker."""
    return shared_server(request.config, "kafka", running_kafka)


def shared_server(config: pytest.Config, name: str, make: Shared) -> str:
    """Return the URL of the run's server; without one the test is skipped."""
    try:
        return things(config).get(name, make)
    except NotHereError as error:
        do_without(str(error))


@contextmanager
def running_postgres(_: Things) -> Iterator[str]:
    """Give the URL of the run's PostgreSQL."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield url
        return
    _need_docker("PostgreSQL", "TEST_DATABASE_URL")
    container = PostgresContainer(os.environ.get("POSTGRES_IMAGE", "postgres:17"))
    # Tests that stop a server have one of their own, which does wait for its disk.
    options = "-c fsync=off -c full_page_writes=off -c max_connections=500"
    with container.with_command(f"postgres {options}"):
        yield str(container.get_connection_url(driver=None))


@contextmanager
def running_kafka(_: Things) -> Iterator[str]:
    """Give the URL of the run's broker."""
    if url := os.environ.get("TEST_BROKER_URL"):
        yield url
        return
    _need_docker("Kafka", "TEST_BROKER_URL")
    with kafka_container(os.environ.get("KAFKA_IMAGE", "apache/kafka:4.1.0")) as url:
        yield url


@pytest.fixture(scope="module")
def logical_postgres_url() -> Iterator[str]:
    """The URL of a database, as a superuser, on a PostgreSQL whose log can be decoded."""
    if not docker_answers():
        do_without("needs Docker, for a PostgreSQL with wal_level=logical")
    container = PostgresContainer(os.environ.get("POSTGRES_IMAGE", "postgres:17"))
    with container.with_command("postgres -c wal_level=logical -c fsync=off"):
        yield str(container.get_connection_url(driver=None))


@pytest.fixture(scope="module")
def own_kafka() -> Iterator[str]:
    """The kafka:// URL of a broker that a module's tests may stop. It makes no topic by itself."""
    if not docker_answers():
        do_without("needs Docker, for a Kafka of the test's own")
    image = os.environ.get("KAFKA_IMAGE", "apache/kafka:4.1.0")
    with kafka_container(image, KAFKA_AUTO_CREATE_TOPICS_ENABLE="false") as url:
        yield url


@pytest.fixture
def topic_name() -> Callable[[str], str]:
    """Makes topic names of this test's own: `topic_name("orders.commands")`."""
    own = uuid.uuid4().hex[:12]
    return lambda name: f"test-{own}.{name}"


@pytest.fixture
def kafka_broker_url(kafka_server_url: str, topic_name: Callable[[str], str]) -> Iterator[str]:
    """Kafka, with a prefix of this test's own."""
    separator = "&" if "?" in kafka_server_url else "?"
    url = f"{kafka_server_url}{separator}prefix={topic_name('')}"
    yield url
    delete_topics(url)


def delete_topics(url: str) -> None:
    """Those with the URL's prefix."""
    broker = broker_from_url(url)
    assert isinstance(broker, KafkaBroker)
    with admin_client(broker.address, timeout=100) as client:
        client.delete_topics(
            [name for name in client.list_topics() if name.startswith(broker.address.prefix)]
        )


@contextmanager
def kafka_container(
    image: str, *, url: str = "kafka://{}", mounts: Mapping[Path, str] = {}, **variables: str
) -> Iterator[str]:
    """A broker in a container. Clients come back to the address it advertises, so its port on this
    machine is chosen beforehand.

    Args:
        url: how to speak to it, with `{}` for host and port.
        mounts: files and folders of this machine, and where the container has them.
        variables: in place of ours, or further ones.
    """
    port = free_port()
    host = DockerClient().host()
    url = url.format(f"{host}:{port}")
    container = (
        DockerContainer(image)
        .with_bind_ports(KAFKA_PORT, port)
        .with_envs(**_kafka_variables(f"{host}:{port}") | variables)
        # As in compose.yaml, so that it also starts again.
        .with_volume_mapping(str(KAFKA_CONFIG), "/mnt/shared/config", "ro")
        .with_command("/mnt/shared/config/start")
    )
    for path, place in mounts.items():
        container.with_volume_mapping(str(path), place, "ro")
    with container:
        _await_kafka(container, url, (host, port))
        yield url


class Server:
    """A container that can be stopped and started again, on the same port."""

    def __init__(self, url: str) -> None:
        self.url = url
        filters = {"publish": str(urlsplit(url).port)}
        [self._container] = DockerClient().client.containers.list(filters=filters)

    def stop(self) -> None:
        self._container.stop(timeout=20)

    def kill(self, signal: str = "SIGKILL") -> None:
        """Send it a signal that ends it, and wait until it has ended."""
        self._container.kill(signal)
        self._container.wait()

    def start(self) -> None:
        self._container.start()


def _kafka_variables(advertised: str) -> dict[str, str]:
    """The whole set: once one variable is given, the image leaves its own defaults out."""
    return {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENERS": f"PLAINTEXT://:{KAFKA_PORT},CONTROLLER://:9093,INTERNAL://:9094",
        # The broker writes the ends of transactions through a connection to itself, and the address
        # for clients leads nowhere inside the container.
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{advertised},INTERNAL://localhost:9094",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": (
            "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT"
        ),
        "KAFKA_INTER_BROKER_LISTENER_NAME": "INTERNAL",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        # A broker that lives for minutes: without the JVM's second compiler it starts in half the
        # time, and leaves the cores to the tests.
        "KAFKA_HEAP_OPTS": "-Xms256m -Xmx768m -XX:TieredStopAtLevel=1",
    }


def _await_kafka(container: DockerContainer, url: str, address: tuple[str, int]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not _answers(url, address):
        container.reload()
        if container.status == "exited" or time.monotonic() > deadline:
            said = b"".join(container.get_logs()).decode(errors="replace")[-500:]
            pytest.fail(f"Kafka did not start; it said: {said}", pytrace=False)
        time.sleep(0.1)


def _answers(url: str, address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
        broker_from_url(url).check()
    except (OSError, BrokerUnavailable):
        return False
    return True


def _need_docker(server: str, variable: str) -> None:
    if not docker_answers():
        raise NotHereError(f"needs {server}: start Docker, or set {variable}")


def docker_answers() -> bool:
    with warnings.catch_warnings():
        # Where nobody answers, Docker's client leaves its socket to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        answers = _pings()
        gc.collect()
    return answers


def _pings() -> bool:
    try:
        DockerClient().client.ping()
    except Exception:  # noqa: BLE001 - whatever keeps Docker from answering
        return False
    return True


def do_without(reason: str) -> NoReturn:
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
