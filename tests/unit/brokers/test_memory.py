"""When memory:// says that it has a message for good."""

import threading
import uuid

import pytest

from brokers import Acknowledged, Failed, Message, Record, broker_from_url
from brokers.memory import MemoryBroker
from tests.unit.waiting import TIMEOUT

COMMANDS = "orders.commands"
EVENTS = "orders.events"


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


def command(number: int = 1) -> Message:
    return Message(COMMANDS, "key", str(number).encode())


def test_a_message_is_acknowledged_when_every_group_has_committed_it(broker: MemoryBroker) -> None:
    one = broker.subscribe([EVENTS], group="one")
    two = broker.subscribe([EVENTS], group="two")
    publisher = broker.publisher()
    publisher.publish(Message(EVENTS, "key", b""), token=1)
    one.commit(one.receive(timeout=0, limit=10))
    assert publisher.reports(timeout=0) == []
    two.commit(two.receive(timeout=0, limit=10))
    assert publisher.reports(timeout=0) == [Acknowledged(1)]


def test_receiving_alone_acknowledges_nothing(broker: MemoryBroker) -> None:
    subscription = broker.subscribe([COMMANDS], group="sagas")
    publisher = broker.publisher()
    publisher.publish(command(), token=1)
    assert len(subscription.receive(timeout=0, limit=10)) == 1
    subscription.close()
    assert publisher.reports(timeout=0) == []


def test_a_command_waits_for_its_subscriber(broker: MemoryBroker) -> None:
    publisher = broker.publisher()
    publisher.publish(command(), token=1)
    assert publisher.reports(timeout=0) == []
    subscription = broker.subscribe([COMMANDS], group="sagas")
    subscription.commit(subscription.receive(timeout=0, limit=10))
    assert publisher.reports(timeout=0) == [Acknowledged(1)]


def test_an_event_without_subscribers_is_acknowledged_at_once(broker: MemoryBroker) -> None:
    publisher = broker.publisher()
    publisher.publish(Message(EVENTS, "key", b""), token=1)
    assert publisher.reports(timeout=0) == [Acknowledged(1)]


def test_closing_a_publisher_takes_its_messages_back(broker: MemoryBroker) -> None:
    kept, closed = broker.publisher(), broker.publisher()
    kept.publish(command(1), token=1)
    closed.publish(command(2), token=2)
    closed.close()
    assert closed.reports(timeout=0) == [Failed(2, "purged")]
    subscription = broker.subscribe([COMMANDS], group="sagas")
    received = subscription.receive(timeout=0, limit=10)
    assert [record.value for record in received] == [b"1"]


def test_what_was_received_before_it_was_taken_back_may_be_committed(broker: MemoryBroker) -> None:
    subscription = broker.subscribe([COMMANDS], group="sagas")
    publisher = broker.publisher()
    publisher.publish(command(1), token=1)
    received = subscription.receive(timeout=0, limit=10)
    publisher.purge()
    subscription.commit(received)
    publisher.publish(command(2), token=2)
    subscription.commit(subscription.receive(timeout=0, limit=10))
    assert publisher.reports(timeout=0) == [Failed(1, "purged"), Acknowledged(2)]


def test_a_url_names_one_broker_in_this_process() -> None:
    name = uuid.uuid4().hex
    assert broker_from_url(f"memory://{name}") is broker_from_url(f"memory://{name}")
    assert broker_from_url(f"memory://{name}") is not broker_from_url("memory://")
    assert broker_from_url(f"memory://{name}").in_process


def test_receiving_waits_for_another_thread(broker: MemoryBroker) -> None:
    subscription = broker.subscribe([COMMANDS], group="sagas")
    received: list[Record] = []
    waiting = threading.Thread(
        target=lambda: received.extend(subscription.receive(timeout=TIMEOUT, limit=1))
    )
    waiting.start()
    broker.publisher().publish(command(), token=1)
    waiting.join(timeout=TIMEOUT)
    assert [record.value for record in received] == [b"1"]


def test_reports_wait_for_another_thread(broker: MemoryBroker) -> None:
    subscription = broker.subscribe([COMMANDS], group="sagas")
    publisher = broker.publisher()
    publisher.publish(command(), token=1)
    committing = threading.Thread(
        target=lambda: subscription.commit(subscription.receive(timeout=TIMEOUT, limit=1))
    )
    committing.start()
    assert publisher.reports(timeout=TIMEOUT) == [Acknowledged(1)]
    committing.join()


def test_many_threads_lose_nothing(broker: MemoryBroker) -> None:
    count, workers = 300, 4
    acknowledged: list[list[int]] = [[] for _ in range(workers)]
    stop = threading.Event()

    def consume() -> None:
        subscription = broker.subscribe([COMMANDS], group="sagas")
        while not stop.is_set():
            subscription.commit(subscription.receive(timeout=0.01, limit=7))

    def produce(worker: int) -> None:
        publisher = broker.publisher()
        for number in range(count):
            publisher.publish(command(number), token=number)
        while len(acknowledged[worker]) < count:
            reports = publisher.reports(timeout=TIMEOUT)
            assert reports
            acknowledged[worker] += [report.token for report in reports]

    consumer = threading.Thread(target=consume)
    producers = [threading.Thread(target=produce, args=(worker,)) for worker in range(workers)]
    for thread in (consumer, *producers):
        thread.start()
    for thread in producers:
        thread.join(timeout=TIMEOUT)
    stop.set()
    consumer.join(timeout=TIMEOUT)
    assert all(sorted(tokens) == list(range(count)) for tokens in acknowledged)
