"""Malformed commands on Kafka: the consumer lives, each is kept with its reason, others flow."""

import json
from contextlib import closing

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from brokers import Broker, Message, broker_from_url
from tests import seed
from tests.e2e.full_service import PARTITIONS, running_processes
from tests.e2e.project.parts import Parts
from tests.e2e.service import until
from tests.unit.sagas.inbox.test_accepting import HEADERS, JSON, VALUES

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

COMMANDS = "orders.commands"
PLACES = st.fixed_dictionaries(
    {
        "ce_specversion": st.just(b"1.0"),
        "ce_id": st.uuids().map(lambda id_: str(id_).encode()),
        "ce_type": st.sampled_from([b"orders.place", b"orders.cancel"]),
        "ce_source": st.just(b"/fuzz"),
    }
).map(lambda headers: tuple(headers.items()))
# No `order_id` and `amount` that would make an order's saga of it: each is to be refused.
BODIES = VALUES | JSON.map(lambda value: json.dumps({"amount": value}).encode())
MALFORMED = st.tuples(BODIES, HEADERS | PLACES)


def test_the_consumer_lives_and_keeps_each(parts: Parts) -> None:
    publish_and_look(parts, batches=10)


@pytest.mark.soak
def test_ten_thousand(parts: Parts) -> None:
    publish_and_look(parts, batches=200)


def publish_and_look(parts: Parts, *, batches: int) -> None:
    """Batches of fifty, each behind a good order."""
    parts.start()
    [consumer] = parts.start_consumers(1)
    broker = broker_from_url(parts.env["SAGAZ_BROKER_URL"], partitions=PARTITIONS)
    found: list[list[Message]] = malformed(batches)
    for number, batch in enumerate(found):
        parts.post(seed.order(order_id=f"ORD-{number}"))
        publish(broker, batch)
    count = sum(map(len, found))
    until(
        lambda: parts.query("SELECT count(*) FROM sagas_refused_command") == [(count,)], timeout=120
    )
    until(lambda: parts.statuses() == {"fulfilled": batches}, timeout=120)

    assert consumer.pid in {process.pid for process in running_processes()}
    assert "Traceback" not in parts.output
    assert parts.query("SELECT count(*) FROM sagas_refused_command WHERE reason = ''") == [(0,)]
    shown = parts.manage("sagas", "refused", "--json", "--limit", str(count))
    assert len(json.loads(shown.stdout)) == count
    assert all(row["reason"] for row in json.loads(shown.stdout))
    parts.assert_audit_is_clean()


def malformed(batches: int) -> list[list[Message]]:
    found: list[list[Message]] = []

    @settings(
        max_examples=batches,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(MALFORMED, min_size=50, max_size=50))
    def gather(batch: list[tuple[bytes, tuple[tuple[str, bytes], ...]]]) -> None:
        found.append(
            [
                Message(COMMANDS, f"K-{number}", value, headers)
                for number, (value, headers) in enumerate(batch)
            ]
        )

    gather()
    return found[:batches]


def publish(broker: Broker, batch: list[Message]) -> None:
    with closing(broker.publisher()) as publisher:
        for token, message in enumerate(batch):
            publisher.publish(message, token=token)
        landed = 0
        while landed < len(batch):
            landed += len(publisher.reports(timeout=10))
