"""A relay whose clock the topic does not allow: nothing is parked, the clock is named."""

import pytest
from kafka.admin import ConfigResource

from brokers import broker_from_url
from brokers.kafka.clients import CLIENTS
from brokers.kafka_broker import KafkaBroker
from brokers.kafka_python.server import admin_client
from tests.e2e.service import until
from tests.relaying.stage import TOPIC, Stage

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


def allow_clocks(url: str, *, behind: int) -> None:
    """Set how many milliseconds the topic lets a producer's clock be behind the broker's."""
    broker = broker_from_url(url)
    assert isinstance(broker, KafkaBroker)
    option = {"message.timestamp.before.max.ms": str(behind)}
    with admin_client(broker.address, timeout=100) as client:
        client.alter_configs([ConfigResource("TOPIC", broker.address.named(TOPIC), option)])


@pytest.mark.parametrize("client", CLIENTS)
def test_it_parks_nothing_and_says_so(stage: Stage, client: str) -> None:
    allow_clocks(stage.broker_url, behind=0)
    relay = stage.relay(SAGAZ_KAFKA_CLIENT=client)
    relay.await_ready()
    with stage.writing(writers=2, keys=5, seconds=0.5, rate=400) as writing:
        until(lambda: "set the clock" in relay.output, timeout=60)
    assert stage.query("SELECT count(*) FROM outbox_parked") == [(0,)]
    reader = stage.reader()
    with reader.running():
        allow_clocks(stage.broker_url, behind=2**62)
        until(lambda: not reader.lost(writing.committed()), timeout=60)
    assert not reader.out_of_order
    assert stage.query("SELECT count(*) FROM outbox_parked") == [(0,)]
    assert "does not answer" not in relay.output
    assert relay.terminate()[0] == 0
