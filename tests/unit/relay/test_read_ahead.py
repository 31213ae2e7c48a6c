"""On a backlog the next batch is read while this one is published: events may overtake it."""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from brokers import BrokerUnavailable, Message, Report
from outbox.models import LANES, OutboxMessage, ParkedMessage
from outbox.murmur2 import murmur2
from relay.assembly import open_store
from relay.store import Pending
from tests.unit.relay.scripted import Kafka, SomeLanes, drain, left, make_relay, put

pytestmark = pytest.mark.django_db(transaction=True)

KEYS = [f"key-{number}" for number in range(20)]


def lane_of(key: str) -> int:
    return murmur2(key.encode()) % LANES


def published_in_order(broker: Kafka) -> bool:
    return all(broker.order_of(key) == sorted(broker.order_of(key)) for key in KEYS)


def test_each_batch_is_asked_for_before_the_one_before_is_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(*KEYS * 3)
    events: list[str] = []
    store, broker = open_store("tests"), Kafka()
    ask = store.head
    publish = broker.publish

    def asked(*arguments: Any, **options: Any) -> Pending:
        events.append("ask")
        return ask(*arguments, **options)

    def published(message: Message, *, token: int) -> bool:
        if events[-1] != "publish":
            events.append("publish")
        return publish(message, token=token)

    monkeypatch.setattr(store, "head", asked)
    monkeypatch.setattr(broker, "publish", published)
    drain(broker, batch_size=8, store=store)
    assert events[:5] == ["ask", "ask", "publish", "ask", "publish"]
    assert len(broker.accepted) == 60


@pytest.mark.parametrize("seed", range(5))
def test_what_failed_is_not_overtaken(seed: int) -> None:
    """As a producer does it: with the first that fails, all after it fail."""
    chance = random.Random(seed)
    put(*(chance.choice(KEYS) for _ in range(150)))

    def judge(batch: Sequence[Message]) -> list[str]:
        good = chance.randrange(len(batch)) if chance.random() < 0.4 else len(batch)
        return ["ok"] * good + ["away"] * (len(batch) - good)

    broker = Kafka(judge)
    drain(broker, batch_size=8)
    assert len(broker.accepted) == 150
    assert published_in_order(broker)


@pytest.mark.parametrize("seed", range(3))
def test_what_was_not_queued_is_not_overtaken(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    put(*(chance.choice(KEYS) for _ in range(150)))
    broker = Kafka()
    publish = broker.publish

    def published(message: Message, *, token: int) -> bool:
        if chance.random() < 0.05:
            raise BrokerUnavailable("nobody there")
        return publish(message, token=token)

    monkeypatch.setattr(broker, "publish", published)
    drain(broker, batch_size=8)
    assert len(broker.accepted) == 150
    assert published_in_order(broker)


@pytest.mark.parametrize("seed", range(3))
def test_nor_is_what_came_after_a_report_that_nobody_brought(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a batch, what comes after it was not sent."""
    chance = random.Random(seed)
    put(*(chance.choice(KEYS) for _ in range(150)))
    broker = Kafka()
    publish, reports = broker.publish, broker.reports

    def published(message: Message, *, token: int) -> bool:
        publish(message, token=token)
        return False  # the relay looks for reports

    def reported(*, timeout: float) -> list[Report]:
        if chance.random() < 0.1:
            raise BrokerUnavailable("nobody there")
        return reports(timeout=timeout)

    monkeypatch.setattr(broker, "publish", published)
    monkeypatch.setattr(broker, "reports", reported)
    drain(broker, batch_size=8)
    assert len(broker.accepted) == 150
    assert published_in_order(broker)


def test_nor_what_there_was_no_publisher_for(monkeypatch: pytest.MonkeyPatch) -> None:
    put(*[KEYS[0]] * 30)
    broker = Kafka()
    away = [BrokerUnavailable("nobody there")]

    def publisher(*, transactional_id: str | None = None) -> Kafka:
        if away:
            raise away.pop()
        return broker

    monkeypatch.setattr(broker, "publisher", publisher)
    drain(broker, batch_size=8)
    assert broker.order_of(KEYS[0]) == [*range(30)]


def test_a_key_that_is_refused_meanwhile_is_parked_whole() -> None:
    put(*KEYS * 5)
    refused = KEYS[3]

    def judge(batch: Sequence[Message]) -> list[str]:
        bad = [message.key == refused and message.value == b"23" for message in batch]
        return ["unsent" if each else "ok" for each in bad]

    broker = Kafka(judge)
    drain(broker, batch_size=8)
    assert broker.order_of(refused)[0] == 3
    assert ParkedMessage.objects.filter(key=refused).count() == 5 - len(broker.order_of(refused))
    assert published_in_order(broker)
    assert left() == 0


class Lanes:
    """What a relay does whose next batch has been read already as its lanes change."""

    def __init__(self, *, silent: bool) -> None:
        put(*KEYS * 3)
        self.lanes, self.broker = SomeLanes(), Kafka()
        self.broker.silent = silent
        self.relay = make_relay(self.broker, batch_size=8, lanes=self.lanes)
        self.relay._cycle.run(wait=0.005)
        sent = self.broker.accepted or [message for _, message in self.broker._queue]
        assert len(sent) == 8
        self.kept = {lane_of(message.key) for message in sent}
        self.others = set(range(LANES)) - self.kept

    def go_on(self) -> None:
        self.broker.silent = False
        for _ in range(40):
            self.relay._cycle.run(wait=0.005)
        self.relay._cycle.close()

    def assert_only_those_kept(self) -> None:
        kept = [key for key in KEYS if lane_of(key) in self.kept]
        assert {message.key for message in self.broker.accepted} == set(kept)
        assert len(self.broker.accepted) == 3 * len(kept)


@pytest.mark.on_sqlite  # where no delete asks the database whose the lanes are
@pytest.mark.parametrize("silent", [True, False])
class TestWhatWasRead:
    def test_of_a_lane_that_is_lost_since(self, *, silent: bool) -> None:
        case = Lanes(silent=silent)
        case.lanes.taken_by_others = set(case.others)
        case.go_on()
        case.assert_only_those_kept()

    def test_of_a_lane_that_has_been_somebody_elses_meanwhile(self, *, silent: bool) -> None:
        """It may hold a message that the other has sent."""
        case = Lanes(silent=silent)
        OutboxMessage.objects.filter(lane__in=case.others).delete()
        case.lanes.held.update(dict.fromkeys(case.others, 2))
        case.go_on()
        case.assert_only_those_kept()

    def test_of_a_lane_that_is_to_be_given_up(self, *, silent: bool) -> None:
        case = Lanes(silent=silent)
        case.lanes.draining = set(case.others)
        case.go_on()
        case.assert_only_those_kept()
