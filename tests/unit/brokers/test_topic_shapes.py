"""Looking at topics: when, how often it is said, and what a look may not do."""

from collections.abc import Mapping

import pytest

from brokers.kafka.timing import DEFAULT_TIMING
from brokers.kafka.topic_shapes import TopicShapes, TopicWatch


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Kafka:
    """What a client has heard of the topics."""

    def __init__(self, **counts: int) -> None:
        self.known: Mapping[str, int] = counts
        self.looks = 0

    def counts(self) -> Mapping[str, int]:
        self.looks += 1
        return self.known


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> TopicWatch:
    shapes = TopicShapes(3)
    shapes.note({"orders": 3})
    return TopicWatch(shapes, clock=clock)


def looked(watch: TopicWatch, clock: Clock, kafka: Kafka, *, minutes: int = 1) -> None:
    for _ in range(minutes):
        clock.now += DEFAULT_TIMING.look_every
        watch.look(kafka.counts)


def test_it_looks_no_more_than_once_a_minute(watch: TopicWatch, clock: Clock) -> None:
    kafka = Kafka(orders=3)
    for _ in range(1_000):
        watch.look(kafka.counts)
    assert kafka.looks == 0
    clock.now += DEFAULT_TIMING.look_every
    for _ in range(1_000):
        watch.look(kafka.counts)
    assert kafka.looks == 1


def test_each_change_is_said_once(
    watch: TopicWatch, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    looked(watch, clock, Kafka(orders=3), minutes=3)
    assert caplog.messages == []
    looked(watch, clock, Kafka(orders=1), minutes=3)
    looked(watch, clock, Kafka(orders=2), minutes=3)
    looked(watch, clock, Kafka(orders=3), minutes=3)
    looked(watch, clock, Kafka(orders=1), minutes=3)
    one, two, whole, one_again = caplog.messages
    assert "topic orders has 1 partition(s), and KAFKA_PARTITIONS is 3" in one
    assert "topic orders has 2 partition(s), and KAFKA_PARTITIONS is 3" in two
    assert whole == "the topic orders has 3 partitions again"
    assert one_again == one


def test_more_partitions_are_said_while_it_runs(
    watch: TopicWatch, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    looked(watch, clock, Kafka(orders=30), minutes=2)
    [line] = caplog.messages
    assert "topic orders has 30 partitions, and had 3: keys move" in line


def test_more_partitions_at_the_start_are_no_news(caplog: pytest.LogCaptureFixture) -> None:
    TopicShapes(3).note({"orders": 30})
    assert caplog.messages == []


def test_the_first_word_of_a_publisher_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    shapes = TopicShapes(3)
    for count in 0, 1, 1:
        shapes.meet("theirs", count)
    assert caplog.messages == []
    shapes.meet("theirs", 0)
    [line] = caplog.messages
    assert "no longer shows the topic theirs" in line


def test_what_was_is_not_news_where_a_server_lags_behind(
    watch: TopicWatch, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for count in 3, 1, 3, 6, 3, 0, 3:
        looked(watch, clock, Kafka(orders=count))
    assert caplog.messages == []


def test_gone_is_believed_when_it_is_seen_twice(
    watch: TopicWatch, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    looked(watch, clock, Kafka(orders=0))
    looked(watch, clock, Kafka(orders=3))
    looked(watch, clock, Kafka(orders=0))
    assert caplog.messages == []
    looked(watch, clock, Kafka(orders=0), minutes=3)
    [line] = caplog.messages
    assert "no longer shows the topic orders, which should have 3 partition(s)" in line


def test_a_look_that_fails_changes_nothing(
    watch: TopicWatch, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Mapping[str, int]:
        raise RuntimeError("the client is closed")

    clock.now += DEFAULT_TIMING.look_every
    watch.look(broken)
    assert caplog.messages == []
    looked(watch, clock, Kafka(orders=1), minutes=2)
    assert len(caplog.messages) == 1


def test_two_clients_of_one_process_say_it_once(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    shapes = TopicShapes(3)
    shapes.note({"orders": 3})
    for watch in TopicWatch(shapes, clock=clock), TopicWatch(shapes, clock=clock):
        looked(watch, clock, Kafka(orders=1), minutes=2)
    assert len(caplog.messages) == 1
