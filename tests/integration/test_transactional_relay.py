"""One transactional producer for each lane: Kafka itself refuses a relay that has lost it."""

import json
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import pytest
from django.db import connection, transaction

from brokers import Record, broker_from_url
from brokers.kafka.clients import LIBRDKAFKA
from brokers.kafka_broker import KafkaBroker
from outbox import enqueue
from outbox.models import LANES, OutboxLane, OutboxMessage, OutboxRelay, ParkedMessage
from relay.assembly import assemble_relay
from relay.loop import Relay
from relay.transactions import LanePublishers
from tests.unit.waiting import in_thread, until

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.kafka,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("postgres", "_no_relays"),
]

PATIENCE = 120.0


@pytest.fixture
def _no_relays() -> None:
    OutboxLane.objects.all().delete()
    OutboxRelay.objects.all().delete()


@pytest.fixture
def broker(kafka_server_url: str) -> KafkaBroker:
    made = broker_from_url(kafka_server_url, partitions=3, client=LIBRDKAFKA)
    assert isinstance(made, KafkaBroker)
    return made


@pytest.fixture
def topic(broker: KafkaBroker, topic_name: Callable[[str], str]) -> str:
    name = topic_name("orders.events")
    broker.ensure_topics([name])
    return name


def relaying(broker: KafkaBroker, topic: str) -> Relay:
    return assemble_relay(broker, source=f"/{topic}", transactional=True, jitter=lambda: 0)


def put(topic: str, payloads: Sequence[object], *, keys: str = "K") -> None:
    with transaction.atomic():
        for number, payload in enumerate(payloads):
            key = keys[number % len(keys)]
            enqueue(topic=topic, key=key, type="shop.sold", payload=payload)


def received(broker: KafkaBroker, topic: str, count: int) -> list[Record]:
    """Everything that a consumer sees, which waits for `count` and then for a while longer."""
    records: list[Record] = []
    with closing(broker.subscribe([topic], group="g")) as subscription:

        def enough() -> bool:
            records.extend(subscription.receive(timeout=0.5, limit=1000))
            return len(records) >= count

        until(enough, timeout=PATIENCE)
        records += subscription.receive(timeout=1, limit=1000)
    return records


def values(records: Sequence[Record], key: str = "K") -> list[int]:
    return [json.loads(r.value or b"") for r in records if r.key == key.encode()]


def everything_is_out() -> bool:
    return not OutboxMessage.objects.exists()


def test_it_publishes_in_order_and_deletes(broker: KafkaBroker, topic: str) -> None:
    put(topic, range(200), keys="abcde")
    relay = relaying(broker, topic)
    assert relay.drain(threading.Event()) == 200
    assert everything_is_out()
    records = received(broker, topic, 200)
    assert len(records) == 200
    for index, key in enumerate("abcde"):
        assert values(records, key) == list(range(index, 200, 5))


def test_a_refused_message_parks_its_key_and_no_other(broker: KafkaBroker, topic: str) -> None:
    put(topic, [0, 1, "x" * 1_200_000, 3, 4, 5, 6, 7], keys="ab")
    relaying(broker, topic).drain(threading.Event())
    records = received(broker, topic, 5)
    assert values(records, "a") == [0]
    assert values(records, "b") == [1, 3, 5, 7]
    assert ParkedMessage.objects.count() == 3


class Pause:
    """Stops whoever comes by for the first time, as if the process had been stopped there."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._go_on = threading.Event()

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def paused(*args: Any, **kwargs: Any) -> Any:
            if not self.reached.is_set():
                self.reached.set()
                assert self._go_on.wait(PATIENCE)
            return function(*args, **kwargs)

        return paused

    def over(self) -> None:
        self._go_on.set()


def expire(relay: Relay) -> None:
    """The database's clock has passed this relay's leases."""
    with connection.cursor() as cursor:
        for table in ("outbox_lane WHERE owner", "outbox_relay WHERE id"):
            past = table.replace("WHERE", "SET until = now() - interval '1 second' WHERE")
            cursor.execute(f"UPDATE {past} = %s", [relay._cycle.store.owner])


@pytest.mark.parametrize("where", ["before it publishes", "before it commits"])
def test_a_relay_that_slept_past_its_lease_is_refused(
    broker: KafkaBroker,
    topic: str,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put(topic, range(5))
    pause, zombie, heir = Pause(), relaying(broker, topic), relaying(broker, topic)
    if where == "before it publishes":
        sending = zombie._cycle.publisher
        monkeypatch.setattr(sending, "publish", pause.before(sending.publish))
    else:
        publishers = zombie._cycle.publisher._publisher
        assert isinstance(publishers, LanePublishers)
        real = publishers._commit
        monkeypatch.setattr(
            publishers,
            "_commit",
            lambda: pause.before(real)() if publishers._pending.total() else real(),
        )
    with in_thread(zombie.run):
        assert pause.reached.wait(PATIENCE)
        expire(zombie)
        with in_thread(heir.run):
            until(everything_is_out, timeout=PATIENCE)
            put(topic, range(5, 10))
            until(everything_is_out, timeout=PATIENCE)
            until(lambda: heir.published == 10, timeout=PATIENCE)  # counted behind the delete
            assert zombie.published == 0
            pause.over()
            until(lambda: "Kafka refuses this relay" in caplog.text, timeout=PATIENCE)
            put(topic, range(10, 15))
            until(everything_is_out, timeout=PATIENCE)
    assert values(received(broker, topic, 15)) == [*range(15)]


def test_a_lane_changes_hands_without_a_refusal(
    broker: KafkaBroker, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A relay that joins, and one that leaves, while messages come."""
    numbers = range(60)
    with in_thread(relaying(broker, topic).run):
        put(topic, numbers[:20], keys="abcdefgh")
        second = relaying(broker, topic)
        with in_thread(second.run):
            until(lambda: second.lanes_held == LANES // 2, timeout=PATIENCE)
            put(topic, numbers[20:40], keys="abcdefgh")
            until(everything_is_out, timeout=PATIENCE)
        put(topic, numbers[40:], keys="abcdefgh")
        until(everything_is_out, timeout=PATIENCE)
    records = received(broker, topic, 60)
    assert len(records) == 60
    assert "Kafka refuses" not in caplog.text
    for key in "abcdefgh":
        assert values(records, key) == sorted(values(records, key))
