"""One producer for each lane, and lanes that wait for theirs; Kafka and the database do as the test
says."""

from collections.abc import Collection, Mapping
from typing import cast

import pytest

from brokers import (
    Acknowledged,
    Broker,
    BrokerUnavailable,
    Failed,
    Fenced,
    Message,
    Report,
)
from relay.transactions import LanePublishers, TransactionalLanes

MESSAGE = Message("t", "K", b"1")


class Producer:
    """Of one lane; `trouble` is what its next call raises."""

    def __init__(self, said: list[str], lane: str) -> None:
        self._said = said
        self._lane = lane
        self._pending: list[int] = []
        self._reports: list[Report] = []
        self.is_ready = False
        self.trouble: Exception | None = None

    def _say(self, what: str) -> None:
        self._said.append(f"{what} {self._lane}")
        trouble, self.trouble = self.trouble, None
        if isinstance(trouble, Fenced):
            self._fail()
        if trouble is not None:
            raise trouble

    def _fail(self) -> None:
        self.is_ready = False
        self._reports += [Failed(token, "") for token in self._pending]
        self._pending = []

    def take_over(self) -> None:
        self._say("take over")
        self.is_ready = True

    def publish(self, message: Message, *, token: int) -> bool:
        assert message == MESSAGE
        self._say("publish")
        self._pending.append(token)
        return True

    def commit(self, *, timeout: float) -> None:
        assert timeout > 0
        self._say("commit")
        self._reports += map(Acknowledged, self._pending)
        self._pending = []

    def reports(self, *, timeout: float) -> list[Report]:
        assert timeout == 0
        reports, self._reports = self._reports, []
        return reports

    def purge(self) -> None:
        self._fail()

    def close(self) -> None:
        self._say("close")
        self._fail()


class Kafka:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.made: list[Producer] = []

    def publisher(self, *, transactional_id: str) -> Producer:
        self.made.append(Producer(self.said, transactional_id))
        return self.made[-1]


class Leases:
    """`next_held` is what the database says of this relay's lanes."""

    draining: Collection[int] = ()

    def __init__(self, said: list[str]) -> None:
        self._said = said
        self.next_held = [{1: 1, 2: 1}]
        self.held: Mapping[int, int] = {}

    def tend(self, *, busy: Collection[int]) -> set[int]:
        assert busy == ()
        self._said.append("look at the leases")
        before, self.held = self.held, self.next_held[0]
        if len(self.next_held) > 1:
            self.next_held.pop(0)
        return set(before) - set(self.held)

    def tend_soon(self) -> None: ...

    def release(self) -> None: ...


@pytest.fixture
def kafka() -> Kafka:
    return Kafka()


@pytest.fixture
def publishers(kafka: Kafka) -> LanePublishers:
    """The lane of a token is its tens."""
    return LanePublishers(cast("Broker", kafka), name="", lane_of=lambda token: token // 10)


@pytest.fixture
def leases(kafka: Kafka) -> Leases:
    return Leases(kafka.said)


@pytest.fixture
def lanes(leases: Leases, publishers: LanePublishers) -> TransactionalLanes:
    return TransactionalLanes(leases, publishers)


class TestLanes:
    def test_the_lease_is_looked_at_after_the_id_was_taken(
        self, lanes: TransactionalLanes, kafka: Kafka
    ) -> None:
        assert lanes.tend(busy=()) == set()
        assert kafka.said[0] == kafka.said[-1] == "look at the leases"
        assert set(kafka.said[1:-1]) == {"take over 1", "take over 2"}
        assert set(lanes.draining) == set()
        lanes.tend(busy=())
        assert len(kafka.said) == 5

    def test_a_lane_that_was_lost_meanwhile_is_not_read(
        self, lanes: TransactionalLanes, leases: Leases
    ) -> None:
        leases.next_held = [{1: 1, 2: 1}, {1: 1}]
        assert lanes.tend(busy=()) == {2}
        assert set(lanes.held) == {1}

    def test_without_its_producer_a_lane_is_not_read(
        self, lanes: TransactionalLanes, kafka: Kafka
    ) -> None:
        lanes.tend(busy=())
        kafka.made[0].is_ready = False
        assert set(lanes.draining) == {1}
        lanes.tend(busy=())
        assert set(lanes.draining) == set()

    def test_a_lane_that_kafka_refuses_is_asked_about(
        self, lanes: TransactionalLanes, leases: Leases, kafka: Kafka, publishers: LanePublishers
    ) -> None:
        lanes.tend(busy=())
        publishers.publish(MESSAGE, token=10)
        kafka.made[0].trouble = Fenced()
        assert publishers.reports(timeout=1) == [Failed(10, "")]
        assert set(lanes.draining) == {1}
        leases.next_held = [{2: 1}]
        assert lanes.tend(busy=()) == {1}
        assert len(kafka.made) == 2

    def test_what_was_lost_is_told_although_kafka_is_away(
        self, lanes: TransactionalLanes, leases: Leases, kafka: Kafka
    ) -> None:
        lanes.tend(busy=())
        leases.next_held = [{2: 1}]
        kafka.made[1].is_ready = False
        kafka.made[1].trouble = BrokerUnavailable()
        with pytest.raises(BrokerUnavailable):
            lanes.tend(busy=())
        assert lanes.tend(busy=()) == {1}


class TestPublishers:
    @pytest.fixture(autouse=True)
    def _ready(self, publishers: LanePublishers) -> None:
        publishers.take_over([1, 2])

    def test_nothing_is_committed_until_somebody_waits(
        self, publishers: LanePublishers, kafka: Kafka
    ) -> None:
        for token in (10, 11, 20):
            publishers.publish(MESSAGE, token=token)
        assert publishers.reports(timeout=0) == []
        reports = publishers.reports(timeout=1)
        assert {report.token for report in reports} == {10, 11, 20}
        assert kafka.said.count("commit 1") == kafka.said.count("commit 2") == 1

    def test_only_lanes_with_something_commit(
        self, publishers: LanePublishers, kafka: Kafka
    ) -> None:
        publishers.publish(MESSAGE, token=20)
        publishers.reports(timeout=1)
        publishers.reports(timeout=1)
        assert [each for each in kafka.said if "commit" in each] == ["commit 2"]

    def test_a_lane_whose_commit_is_not_known_is_not_read_and_commits_again(
        self, publishers: LanePublishers, kafka: Kafka
    ) -> None:
        for token in (10, 20):
            publishers.publish(MESSAGE, token=token)
        kafka.made[0].trouble = BrokerUnavailable()
        assert publishers.reports(timeout=1) == [Acknowledged(20)]
        assert not publishers.can_send(1)
        assert publishers.can_send(2)
        kafka.made[0].trouble = BrokerUnavailable()
        with pytest.raises(BrokerUnavailable):
            publishers.reports(timeout=1)
        assert publishers.reports(timeout=1) == [Acknowledged(10)]
        assert publishers.can_send(1)

    def test_without_its_producer_a_message_fails_and_is_not_sent(
        self, publishers: LanePublishers, kafka: Kafka
    ) -> None:
        publishers.publish(MESSAGE, token=30)
        kafka.made[0].is_ready = False
        publishers.publish(MESSAGE, token=10)
        assert [type(each) for each in publishers.reports(timeout=0)] == [Failed, Failed]
        assert not any("publish" in each for each in kafka.said)

    def test_what_a_lane_has_under_way_when_it_is_given_up_fails(
        self, publishers: LanePublishers, kafka: Kafka
    ) -> None:
        publishers.publish(MESSAGE, token=10)
        publishers.keep([2])
        assert publishers.reports(timeout=0) == [Failed(10, "")]
        assert not publishers.can_send(1)
        assert "close 1" in kafka.said

    def test_fenced_at_once(self, publishers: LanePublishers, kafka: Kafka) -> None:
        kafka.made[0].trouble = Fenced("taken")
        publishers.publish(MESSAGE, token=10)
        assert publishers.reports(timeout=0) == [Failed(10, "taken")]
        assert publishers.fenced == {1}

    def test_closing_closes_all(self, publishers: LanePublishers, kafka: Kafka) -> None:
        publishers.close()
        assert {"close 1", "close 2"} <= set(kafka.said)
