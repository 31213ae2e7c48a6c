"""What becomes of a batch that was read ahead and is kept: it is neither wasted nor stale."""

import random
import threading
from dataclasses import replace

import pytest
from django.core.management import call_command
from django.db import OperationalError

from brokers import Failed, Message, QueueFull
from outbox.models import OutboxMessage, ParkedMessage
from relay.assembly import open_store
from relay.loop import Relay
from relay.store import Pending, Row
from saga_runtime.backoff import Backoff
from tests.unit.relay.scripted import QUICK, Kafka, drain, make_relay, put
from tests.unit.relay.test_read_ahead import KEYS, Lanes, lane_of, published_in_order

pytestmark = pytest.mark.django_db(transaction=True)


class Counted:
    """A read that notes the size of its answer."""

    def __init__(self, pending: Pending, sizes: list[int]) -> None:
        self._pending = pending
        self._sizes = sizes

    def result(self) -> list[Row]:
        found = self._pending.result()
        self._sizes.append(len(found))
        return found


def test_a_full_queue_has_nothing_read_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large messages: the producer takes a few at a time."""

    class Narrow(Kafka):
        def publish(self, message: Message, *, token: int) -> bool:
            if len(self._queue) == 2:
                raise QueueFull("as much as may be")
            return super().publish(message, token=token)

    put(*KEYS * 5)
    store, sizes = open_store("tests"), list[int]()
    ask = store.head
    monkeypatch.setattr(store, "head", lambda *args, **more: Counted(ask(*args, **more), sizes))
    broker = Narrow()
    drain(broker, batch_size=20, store=store)
    assert len(broker.accepted) == 100
    assert published_in_order(broker)
    assert sum(sizes) <= 2 * 100


@pytest.mark.on_sqlite  # where no read asks the database whose the lanes are
def test_what_was_read_before_an_outage_of_the_database_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until it answers again, others may have taken the lanes."""
    case = Lanes(silent=True)
    case.broker.silent = False
    stop = threading.Event()
    with monkeypatch.context() as away:

        def fails(*_: object) -> None:
            raise OperationalError("the server is gone")

        away.setattr(case.relay._cycle.store, "delete", fails)
        case.relay._run_cycle(stop)
    assert case.relay.outages["database"] == 1
    seen = len(case.broker.accepted)
    OutboxMessage.objects.filter(lane__in=case.others).delete()  # by the relay that has them now
    for _ in range(20):
        case.relay._run_cycle(stop)
    case.relay._cycle.close()
    late = {lane_of(message.key) for message in case.broker.accepted[seen:]}
    assert not late & case.others


@pytest.fixture
def parked_key() -> Kafka:
    put("bad")
    broker = Kafka(lambda batch: ["unsent" if each.key == "bad" else "ok" for each in batch])
    drain(broker)
    assert ParkedMessage.objects.get().key == "bad"
    put(*KEYS[:10], "bad", *KEYS[:10])
    return Kafka()


def kept(relay: Relay) -> set[str]:
    return {row.key for row in relay._cycle.reader._ahead.rows}


def test_what_was_read_ahead_of_a_parked_key_is_parked_too(parked_key: Kafka) -> None:
    relay = make_relay(parked_key, batch_size=8)
    relay._cycle.run(wait=0.005)
    assert "bad" in kept(relay)
    relay.drain(threading.Event())
    assert parked_key.order_of("bad") == []
    assert ParkedMessage.objects.filter(key="bad").count() == 2


def test_what_is_put_back_after_that_goes_first(parked_key: Kafka) -> None:
    relay = make_relay(parked_key, batch_size=8)
    relay._cycle.run(wait=0.005)
    assert "bad" in kept(relay)
    call_command("outbox", "retry", "bad", "--why", "the limit is raised")
    relay.drain(threading.Event())
    assert parked_key.order_of("bad") == [0, 10]


@pytest.mark.parametrize("seed", range(3))
def test_what_failed_while_the_batch_was_published_is_not_overtaken(seed: int) -> None:
    """Its lane rests, and so is as closed before as after."""
    chance = random.Random(seed)

    class Choosy(Kafka):
        def publish(self, message: Message, *, token: int) -> bool:
            if chance.random() < 0.1:
                self._given_up.append(Failed(token, "not now", only_it=True))
                return False
            return super().publish(message, token=token)

    put(*(chance.choice(KEYS) for _ in range(150)))
    broker = Choosy()
    timing = replace(QUICK, lane_rest=Backoff(first=0.003, longest=0.003))
    make_relay(broker, batch_size=8, timing=timing).drain(threading.Event())
    assert len(broker.accepted) == 150
    assert published_in_order(broker)
