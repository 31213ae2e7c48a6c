"""What `brokers/base.py` promises, held against every implementation."""

import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import cast

import pytest

from brokers import (
    Acknowledged,
    Broker,
    BrokerConfigurationError,
    Failed,
    Fenced,
    Message,
    Publisher,
    Record,
    Refused,
    Report,
    Subscription,
    TransactionalPublisher,
    broker_from_url,
)
from brokers.kafka.clients import CLIENTS
from brokers.kafka_broker import KafkaBroker
from brokers.kafka_python.server import KafkaServer

PATIENCE = 150.0  # kafka-python may need a second member, after half a minute
TOO_LARGE = b"x" * 2_000_000


@pytest.fixture(
    params=["memory", *(pytest.param(name, marks=pytest.mark.kafka) for name in CLIENTS)]
)
def broker(request: pytest.FixtureRequest) -> Broker:
    if request.param == "memory":
        return broker_from_url(f"memory://{uuid.uuid4().hex}")
    url = request.getfixturevalue("kafka_server_url")
    return broker_from_url(url, partitions=3, client=request.param)


@pytest.fixture
def transactional(broker: Broker) -> Broker:
    assert broker.has_transactions
    return broker


@pytest.fixture
def publisher(broker: Broker) -> Iterator[Publisher]:
    with closing(broker.publisher()) as opened:
        yield opened


def receive(*subscriptions: Subscription, count: int) -> list[Record]:
    """Records of all these together, until there are `count`."""
    records: list[Record] = []
    deadline = time.monotonic() + PATIENCE
    while len(records) < count and time.monotonic() < deadline:
        for subscription in subscriptions:
            records += subscription.receive(timeout=0.1, limit=100)
    return records


def collect(publisher: Publisher, count: int) -> list[Report]:
    reports: list[Report] = []
    deadline = time.monotonic() + PATIENCE
    while len(reports) < count and time.monotonic() < deadline:
        reports += publisher.reports(timeout=0.1)
    return reports


def publish(publisher: Publisher, topic: str, count: int, *, keys: int = 5) -> list[Message]:
    messages = [
        Message(topic, key=f"key-{number % keys}", value=str(number).encode())
        for number in range(count)
    ]
    for token, message in enumerate(messages):
        publisher.publish(message, token=token)
    return messages


def values(records: list[Record]) -> list[int]:
    return [int(record.value or b"") for record in records]


class TestPublishing:
    def test_the_bytes_arrive_as_they_were(
        self, broker: Broker, publisher: Publisher, topic: str
    ) -> None:
        headers = (("ce_id", b"\x00\xff"), ("twice", b"1"), ("twice", b"2"), ("empty", b""))
        with closing(broker.subscribe([topic], group=topic)) as subscription:
            publisher.publish(Message(topic, "ключ", b"\x00\xff{}", headers), token=7)
            [record] = receive(subscription, count=1)
            subscription.commit([record])
            assert collect(publisher, 1) == [Acknowledged(7)]
        assert record.topic == topic
        assert record.key == "ключ".encode()
        assert record.value == b"\x00\xff{}"
        assert record.headers == headers

    def test_a_key_keeps_its_order(self, broker: Broker, publisher: Publisher, topic: str) -> None:
        publish(publisher, topic, 300, keys=7)
        with closing(broker.subscribe([topic], group=topic)) as subscription:
            records = receive(subscription, count=300)
        by_key = defaultdict(list)
        for record in records:
            by_key[record.key].append(int(record.value or b""))
        assert len(records) == 300
        assert len(by_key) == 7
        assert all(numbers == sorted(numbers) for numbers in by_key.values())

    def test_every_token_is_reported_once(
        self, broker: Broker, publisher: Publisher, topic: str
    ) -> None:
        publish(publisher, topic, 200)
        with closing(broker.subscribe([topic], group=topic)) as subscription:
            subscription.commit(receive(subscription, count=200))
        reports = collect(publisher, 200)
        assert sorted(report.token for report in reports) == list(range(200))
        assert {type(report) for report in reports} == {Acknowledged}
        assert publisher.reports(timeout=0.2) == []

    def test_a_message_that_is_too_large_is_refused_and_others_go_on(
        self, broker: Broker, publisher: Publisher, topic_name: Callable[[str], str]
    ) -> None:
        events = topic_name("orders.events")
        broker.ensure_topics([events])
        waiting = {token: Message(events, "key", b"small") for token in range(10)}
        waiting[5] = Message(events, "key", TOO_LARGE)
        fates: dict[int, Report] = {}
        deadline = time.monotonic() + PATIENCE
        while waiting and time.monotonic() < deadline:
            for token, message in waiting.items():
                publisher.publish(message, token=token)
            for report in collect(publisher, len(waiting)):
                if not isinstance(report, Failed):
                    fates[report.token] = report
                    del waiting[report.token]
        refused = fates.pop(5)
        assert isinstance(refused, Refused)
        assert refused.reason
        assert set(fates.values()) == {Acknowledged(token) for token in (0, 1, 2, 3, 4, 6, 7, 8, 9)}

    def test_what_is_not_queued_is_reported_at_once(
        self, broker: Broker, publisher: Publisher, topic_name: Callable[[str], str]
    ) -> None:
        events = topic_name("orders.events")
        broker.ensure_topics([events])
        assert publisher.publish(Message(events, "key", b"small"), token=1)
        assert not publisher.publish(Message(events, "key", TOO_LARGE), token=2)
        assert 2 in {report.token for report in publisher.reports(timeout=0)}

    def test_purging_reports_each_unacknowledged_message_once(
        self, publisher: Publisher, topic: str
    ) -> None:
        publish(publisher, topic, 100)
        publisher.purge()
        publisher.purge()
        reports = collect(publisher, 100)
        assert sorted(report.token for report in reports) == list(range(100))
        assert any(isinstance(report, Failed) for report in reports)
        assert {type(report) for report in reports} <= {Acknowledged, Failed}
        assert publisher.reports(timeout=0.2) == []

    def test_a_purged_publisher_can_be_used_again(
        self, broker: Broker, publisher: Publisher, topic: str
    ) -> None:
        publish(publisher, topic, 10)
        publisher.purge()
        collect(publisher, 10)
        publisher.publish(Message(topic, "key", b"1000"), token=1000)
        with closing(broker.subscribe([topic], group=topic)) as subscription:
            records: list[Record] = []
            while 1000 not in values(records):
                records += receive(subscription, count=1)
            subscription.commit(records)
        assert collect(publisher, 1) == [Acknowledged(1000)]

    def test_closing_twice(self, broker: Broker, topic: str) -> None:
        publisher = broker.publisher()
        publish(publisher, topic, 1)
        publisher.close()
        publisher.close()


class WithoutSizeLimits(KafkaServer):
    """Does not say what is too large: only the broker can judge."""

    def size_limit(self, *_: str) -> None:
        return None


@pytest.fixture
def judging(transactional: Broker) -> Broker:
    """A broker that has to be sent a message to know that it is too large."""
    assert isinstance(transactional, KafkaBroker), "others know it at once"
    return KafkaBroker(
        transactional.address,
        partitions=transactional.partitions,
        client=transactional.client,
        questions=WithoutSizeLimits(transactional.address),
    )


class TestTransactions:
    def test_without_an_id_there_is_nothing_to_commit(
        self, publisher: Publisher, topic: str
    ) -> None:
        publish(publisher, topic, 1)
        publisher.commit(timeout=1)

    def test_a_broker_without_them_says_so(self, broker: Broker) -> None:
        if not broker.has_transactions:
            with pytest.raises(BrokerConfigurationError, match="transactions"):
                broker.publisher(transactional_id="lane-1")

    @pytest.mark.transactions
    def test_it_is_received_and_reported_once_it_is_committed(
        self, transactional: Broker, topic: str
    ) -> None:
        with (
            closing(transactional.publisher(transactional_id=topic)) as publisher,
            closing(transactional.subscribe([topic], group=topic)) as subscription,
        ):
            for first in (0, 10):
                for token in range(first, first + 10):
                    message = Message(topic, f"key-{token}", str(token).encode())
                    publisher.publish(message, token=token)
                assert publisher.reports(timeout=0.5) == []
                assert subscription.receive(timeout=0.5, limit=100) == []
                publisher.commit(timeout=PATIENCE)
                reports = collect(publisher, 10)
                assert set(reports) == {Acknowledged(token) for token in range(first, first + 10)}
                records = receive(subscription, count=10)
                assert sorted(values(records)) == list(range(first, first + 10))

    @pytest.mark.transactions
    def test_what_is_purged_is_never_received(self, transactional: Broker, topic: str) -> None:
        with closing(transactional.publisher(transactional_id=topic)) as publisher:
            publish(publisher, topic, 10)
            assert publisher.reports(timeout=0.5) == []
            publisher.purge()
            assert {type(report) for report in collect(publisher, 10)} == {Failed}
            publisher.publish(Message(topic, "key", b"99"), token=99)
            publisher.commit(timeout=PATIENCE)
            assert collect(publisher, 1) == [Acknowledged(99)]
        with closing(transactional.subscribe([topic], group=topic)) as subscription:
            assert values(receive(subscription, count=1)) == [99]

    @pytest.mark.transactions
    def test_what_is_refused_unsent_is_no_part_of_it(
        self, transactional: Broker, topic: str
    ) -> None:
        with closing(transactional.publisher(transactional_id=topic)) as publisher:
            fates = commit_with_one_too_large(publisher, topic)
            assert fates == {**dict.fromkeys(range(5), Acknowledged), 5: Refused}

    @pytest.mark.transactions
    def test_a_refused_message_takes_the_others_with_it(self, judging: Broker, topic: str) -> None:
        with closing(judging.publisher(transactional_id=topic)) as publisher:
            fates = commit_with_one_too_large(publisher, topic)
            assert fates == {**dict.fromkeys(range(5), Failed), 5: Refused}
            publisher.publish(Message(topic, "key", b"99"), token=99)
            publisher.commit(timeout=PATIENCE)
            assert collect(publisher, 1) == [Acknowledged(99)]
        with closing(judging.subscribe([topic], group=topic)) as subscription:
            assert values(receive(subscription, count=1)) == [99]

    @pytest.mark.parametrize("when", ["idle", "publishing", "committing"])
    @pytest.mark.transactions
    def test_the_next_publisher_fences_the_one_before(
        self, transactional: Broker, topic: str, when: str
    ) -> None:
        with (
            closing(transactional.publisher(transactional_id=topic)) as zombie,
            closing(transactional.publisher(transactional_id=topic)) as heir,
        ):
            zombie.publish(Message(topic, "key", b"1"), token=1)
            if when == "idle":
                zombie.commit(timeout=PATIENCE)
                assert collect(zombie, 1) == [Acknowledged(1)]
            if when == "committing":
                assert zombie.reports(timeout=0.5) == []
            heir.publish(Message(topic, "key", b"2"), token=2)
            heir.commit(timeout=PATIENCE)
            assert collect(heir, 1) == [Acknowledged(2)]

            if when != "committing":
                zombie.publish(Message(topic, "key", b"3"), token=3)
            with pytest.raises(Fenced):
                zombie.commit(timeout=PATIENCE)
            failed = {"idle": {3}, "publishing": {1, 3}, "committing": {1}}[when]
            reports = collect(zombie, len(failed))
            assert {report.token for report in reports if isinstance(report, Failed)} == failed
            with pytest.raises(Fenced):
                zombie.publish(Message(topic, "key", b"4"), token=4)

            heir.publish(Message(topic, "key", b"5"), token=5)
            heir.commit(timeout=PATIENCE)
        with closing(transactional.subscribe([topic], group=topic)) as subscription:
            expected = [1, 2, 5] if when == "idle" else [2, 5]
            assert values(receive(subscription, count=len(expected))) == expected

    @pytest.mark.transactions
    def test_taking_over_fences_before_there_is_a_message(
        self, transactional: Broker, topic: str
    ) -> None:
        with (
            closing(transactional_publisher(transactional, topic)) as zombie,
            closing(transactional_publisher(transactional, topic)) as heir,
        ):
            zombie.take_over()
            heir.take_over()
            zombie.publish(Message(topic, "key", b"1"), token=1)
            with pytest.raises(Fenced):
                zombie.commit(timeout=PATIENCE)
            assert [type(report) for report in collect(zombie, 1)] == [Failed]
            assert not zombie.is_ready
            with pytest.raises(Fenced):
                zombie.take_over()
            heir.publish(Message(topic, "key", b"2"), token=2)
            heir.commit(timeout=PATIENCE)
            assert heir.is_ready
        with closing(transactional.subscribe([topic], group=topic)) as subscription:
            assert values(receive(subscription, count=1)) == [2]

    @pytest.mark.transactions
    def test_after_a_failure_the_id_must_be_taken_over_again(
        self, judging: Broker, topic: str
    ) -> None:
        with closing(transactional_publisher(judging, topic)) as publisher:
            publisher.take_over()
            publisher.publish(Message(topic, "key", TOO_LARGE), token=1)
            assert [type(report) for report in collect(publisher, 1)] == [Refused]
            assert not publisher.is_ready
            publisher.take_over()
            publisher.publish(Message(topic, "key", b"2"), token=2)
            publisher.commit(timeout=PATIENCE)
            assert collect(publisher, 1) == [Acknowledged(2)]


def commit_with_one_too_large(publisher: Publisher, topic: str) -> dict[int, type[Report]]:
    """Of five messages, and of a sixth that is too large: what each has become."""
    publish(publisher, topic, 5)
    publisher.publish(Message(topic, "key", TOO_LARGE), token=5)
    publisher.commit(timeout=PATIENCE)
    return {report.token: type(report) for report in collect(publisher, 6)}


def transactional_publisher(broker: Broker, id_: str) -> TransactionalPublisher:
    return cast("TransactionalPublisher", broker.publisher(transactional_id=id_))


class TestSubscribing:
    def test_each_group_receives_everything(
        self, broker: Broker, publisher: Publisher, topic: str
    ) -> None:
        with (
            closing(broker.subscribe([topic], group=f"{topic}-one")) as one,
            closing(broker.subscribe([topic], group=f"{topic}-two")) as two,
        ):
            publish(publisher, topic, 30)
            assert sorted(values(receive(one, count=30))) == list(range(30))
            assert sorted(values(receive(two, count=30))) == list(range(30))

    def test_several_topics(
        self, broker: Broker, publisher: Publisher, topic_name: Callable[[str], str]
    ) -> None:
        topics = [topic_name("a.commands"), topic_name("b.commands")]
        broker.ensure_topics(topics)
        for token, topic in enumerate(topics):
            publisher.publish(Message(topic, "key", b"1"), token=token)
        with closing(broker.subscribe(topics, group=topics[0])) as subscription:
            records = receive(subscription, count=2)
        assert sorted(record.topic for record in records) == sorted(topics)

    def test_each_joins_its_group_also_without_a_partition(
        self, broker: Broker, topic: str
    ) -> None:
        members = [broker.subscribe([topic], group=topic) for _ in range(4)]  # of three partitions
        try:
            if not broker.in_process:
                assert not any(member.is_joined for member in members)
            deadline = time.monotonic() + PATIENCE
            while not all(member.is_joined for member in members):
                assert time.monotonic() < deadline
                for member in members:
                    member.receive(timeout=0.05, limit=1)
        finally:
            for member in members:
                member.close()

    def test_what_is_not_committed_is_received_again(
        self, broker: Broker, publisher: Publisher, topic: str
    ) -> None:
        publish(publisher, topic, 20)
        with closing(broker.subscribe([topic], group=topic)) as first:
            before = receive(first, count=20)
        with closing(broker.subscribe([topic], group=topic)) as second:
            again = receive(second, count=20)
        assert sorted(values(before)) == sorted(values(again)) == list(range(20))

    def test_what_is_committed_is_not(
        self, broker: Broker, publisher: Publisher, topic: str
    ) -> None:
        publish(publisher, topic, 20)
        with closing(broker.subscribe([topic], group=topic)) as first:
            first.commit(receive(first, count=20))
        publisher.publish(Message(topic, "key", b"99"), token=99)
        with closing(broker.subscribe([topic], group=topic)) as second:
            assert values(receive(second, count=1)) == [99]

    def test_a_part_can_be_committed(
        self, broker: Broker, publisher: Publisher, topic: str
    ) -> None:
        publish(publisher, topic, 20, keys=1)
        with closing(broker.subscribe([topic], group=topic)) as first:
            first.commit(receive(first, count=20)[:5])
        with closing(broker.subscribe([topic], group=topic)) as second:
            assert values(receive(second, count=15)) == list(range(5, 20))

    def test_a_limit_is_kept(self, broker: Broker, publisher: Publisher, topic: str) -> None:
        publish(publisher, topic, 20)
        with closing(broker.subscribe([topic], group=topic)) as subscription:
            sizes: list[int] = []
            while sum(sizes) < 20:
                sizes.append(len(subscription.receive(timeout=1, limit=3)))
        assert max(sizes) == 3

    def test_closing_twice(self, broker: Broker, topic: str) -> None:
        subscription = broker.subscribe([topic], group=topic)
        subscription.receive(timeout=0.1, limit=1)
        subscription.close()
        subscription.close()

    def test_committing_nothing(self, broker: Broker, topic: str) -> None:
        with closing(broker.subscribe([topic], group=topic)) as subscription:
            subscription.commit([])


class TestTheServer:
    def test_it_answers(self, broker: Broker) -> None:
        broker.check()

    def test_topics_are_made_once(self, broker: Broker, topic: str) -> None:
        broker.ensure_topics([topic, topic])
        broker.ensure_topics([topic])
        broker.ensure_topics([])
