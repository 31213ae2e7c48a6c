"""What is said while the service starts: which part is waited for, and when each one works."""

import socket
import threading
from collections.abc import Mapping

import pytest
from django.db import OperationalError, connection

from brokers import BrokerUnavailable, Record
from brokers.memory import MemoryBroker
from config.management.commands.up import _answers
from relay.assembly import assemble_relay
from relay.lanes import EveryLane
from relay.timing import POSTGRESQL_TIMING, Timing
from saga_runtime.backoff import Backoff
from saga_runtime.signs_of_life import EVERY, SignsOfLife
from sagas.inbox.consumer import SagaConsumer
from sagas.worker.executor import Executor
from sagas.worker.service import SagaService
from tests.ports import free_port
from tests.unit.waiting import in_thread, until


class TestSignsOfLife:
    def test_they_name_what_is_waited_for_now_and_then(self) -> None:
        said: list[str] = []
        now = 100.0
        signs = SignsOfLife(said.append, clock=lambda: now)
        for _ in range(100):
            now += EVERY / 10
            signs.waiting_for(["relay", "consumer-1"])
        assert said[0] == f"waiting for relay, consumer-1 ({EVERY:.0f} s)"
        assert 8 <= len(said) <= 10


def test_a_port_that_nobody_answers_at_is_not_ready() -> None:
    """gunicorn's takes connections before there is a worker."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not _answers("127.0.0.1", listener.getsockname()[1])
    assert not _answers("127.0.0.1", free_port())


class Later(MemoryBroker):
    """Away, then there, and last with the group joined."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = 0

    def subscribe(self, topics, *, group):  # type: ignore[no-untyped-def]
        if self.stage == 0:
            raise BrokerUnavailable("nobody answers")
        broker, inner = self, super().subscribe(topics, group=group)

        class Joining:
            @property
            def is_joined(self) -> bool:
                return broker.stage == 2

            def receive(self, *, timeout: float, limit: int) -> list[Record]:
                return inner.receive(timeout=min(timeout, 0.01), limit=limit)

            commit, close = inner.commit, inner.close

        return Joining()


@pytest.mark.django_db(transaction=True)
class TestReady:
    def test_a_consumer_is_when_its_group_has_taken_it_in(self) -> None:
        broker = Later()
        consumer = SagaConsumer(broker, topics=["a.commands"], group="g")
        executor = Executor(concurrency=2)
        said: list[str] = []

        def run(stop: threading.Event) -> None:
            SagaService(consumer, executor).run(stop, ready=lambda: said.append("ready"))

        with in_thread(run):
            until(lambda: executor.has_claimed)
            assert not consumer.is_joined
            broker.stage = 1
            until(lambda: not consumer._broker_outage.going_on)
            assert (said, consumer.is_joined) == ([], False)
            broker.stage = 2
            until(lambda: said)
        assert said == ["ready"]

    def test_a_relay_is_when_the_database_lets_it_read(self) -> None:
        said: list[str] = []
        away = threading.Event()
        away.set()

        def refuse(run, sql, *arguments):  # type: ignore[no-untyped-def]
            if away.is_set():
                raise OperationalError("the server is starting up")
            return run(sql, *arguments)

        def relay_run(stop: threading.Event) -> None:
            with connection.execute_wrapper(refuse):
                relay.run(stop)

        relay = assemble_relay(
            MemoryBroker(),
            source="/tests",
            timing=Timing(outage=Backoff(first=0.001, longest=0.01)),
            ready=lambda: said.append("ready"),
        )
        with in_thread(relay_run):
            until(lambda: relay._database_outage.going_on)
            assert said == []
            away.clear()
            until(lambda: said)
            until(lambda: not relay._database_outage.going_on)
        assert said == ["ready"]

    def test_a_relay_without_lanes_is_not_yet(self) -> None:
        """As after a crash: they are leased to a relay that is dead."""

        class Leased(EveryLane):
            held: Mapping[int, int] = {}

        lanes, said = Leased(), list[str]()
        now = 0.0
        relay = assemble_relay(
            MemoryBroker(),
            source="/tests",
            lanes=lanes,
            ready=lambda: said.append("ready"),
            clock=lambda: now,
        )
        stop = threading.Event()
        relay._run_cycle(stop)
        assert said == []
        lanes.held = {1: 1}
        relay._run_cycle(stop)
        assert said == ["ready"]

    def test_a_relay_for_which_the_others_leave_no_lane_is_after_two_leases(self) -> None:
        class Leased(EveryLane):
            held: Mapping[int, int] = {}

        said: list[str] = []
        now = 0.0
        relay = assemble_relay(
            MemoryBroker(),
            source="/tests",
            lanes=Leased(),
            ready=lambda: said.append("ready"),
            clock=lambda: now,
        )
        relay._run_cycle(threading.Event())
        assert said == []
        now = 2 * POSTGRESQL_TIMING.lease
        relay._run_cycle(threading.Event())
        assert said == ["ready"]
