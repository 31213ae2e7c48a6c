"""Give tests a Kafka by either client, directly and behind a proxy."""

import gc
from collections.abc import Callable, Iterator

import pytest

from brokers import Broker, broker_from_url
from brokers.kafka.address import KafkaAddress
from brokers.kafka.clients import CLIENTS
from brokers.kafka.timing import DEFAULT_TIMING, KafkaTiming
from brokers.kafka_broker import KafkaBroker
from tests.integration.brokers.kafka_proxy import KafkaProxy


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def timing() -> KafkaTiming:
    return DEFAULT_TIMING


@pytest.fixture
def broker(kafka_server_url: str, client: str, timing: KafkaTiming) -> KafkaBroker:
    made = broker_from_url(kafka_server_url, partitions=3, client=client, timing=timing)
    assert isinstance(made, KafkaBroker)
    return made


@pytest.fixture
def topic(broker: Broker, topic_name: Callable[[str], str]) -> str:
    name = topic_name("orders.commands")
    broker.ensure_topics([name])
    return name


@pytest.fixture
def proxy(broker: KafkaBroker) -> Iterator[KafkaProxy]:
    host, port = broker.address.servers[0].rsplit(":", 1)
    with KafkaProxy(host, int(port)).running() as running:
        assert isinstance(running, KafkaProxy)
        yield running


@pytest.fixture
def proxied(broker: KafkaBroker, proxy: KafkaProxy) -> KafkaBroker:
    """The broker behind the proxy."""
    return KafkaBroker(KafkaAddress((f"127.0.0.1:{proxy.port}",)), client=broker.client)
