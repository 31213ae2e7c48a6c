"""A command that our database never lets its trigger judge holds its partition for a while only."""

import json
from collections.abc import Callable

import pytest
from django.db import OperationalError, connection
from sagaz import Saga as SagaClass
from sagaz import action
from sagaz.core.triggers import trigger

from brokers import Message, Record
from brokers.memory import MemoryBroker
from saga_runtime.backoff import Backoff
from sagas.inbox import undecided
from sagas.inbox.consumer import SagaConsumer
from sagas.inbox.undecided import CommandUndecided, Undecided
from sagas.models import RefusedCommand, Saga
from tests.unit.sagas.saga_running import Context, Register
from tests.unit.waiting import in_thread, until

RECORD = Record("t", 0, 7, b"k", b"{}", ())


class DeadlockError(Exception):
    sqlstate = "40P01"


def deadlock() -> None:
    raise OperationalError("deadlock detected") from DeadlockError()


def refused_by_server() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "DO $$ BEGIN RAISE EXCEPTION 'no foreign server' USING ERRCODE='08001'; END $$"
        )


def takes_too_long() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 50")
        try:
            cursor.execute("SELECT pg_sleep(5)")
        finally:
            # The pool gives the connection to another test, as it is.
            cursor.execute("RESET statement_timeout")


class TestThroughAConsumer:
    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize(
        ("ask", "text"),
        [
            (deadlock, "deadlock detected"),
            pytest.param(refused_by_server, "no foreign server", marks=pytest.mark.on_postgresql),
            pytest.param(takes_too_long, "statement timeout", marks=pytest.mark.on_postgresql),
        ],
    )
    def test_the_command_behind_it_comes_through(
        self,
        register: Register,
        ask: Callable[[], None],
        text: str,
    ) -> None:
        asked = []

        class Tour(SagaClass):
            saga_name = "tour"

            @trigger(source="tour.book", idempotency_key="trip")
            def on_book(self, event: Context) -> Context:
                if event["trip"] == "poison":
                    asked.append(event)
                    ask()
                return {}

            @action("fly")
            def fly(self, ctx: Context) -> None: ...

        register(Tour)
        broker = MemoryBroker()
        consumer = SagaConsumer(
            broker,
            topics=["t"],
            group="g",
            undecided=Undecided(most_tries=3, patience=0, backoff=Backoff(0.01, 10.0)),
        )
        with in_thread(consumer.run):
            for number, trip in enumerate(["poison", "good"]):
                headers = {"specversion": "1.0", "id": trip, "source": "/t", "type": "tour.book"}
                texts = tuple((f"ce_{name}", value.encode()) for name, value in headers.items())
                value = json.dumps({"trip": trip}).encode()
                broker.publisher().publish(Message("t", "k", value, texts), token=number)
            until(Saga.objects.exists)
        assert Saga.objects.get().key == "good"
        assert len(asked) == 3
        assert text in RefusedCommand.objects.get().reason


@pytest.mark.django_db
class TestPatience:
    error = OperationalError("gone")

    def test_time_counts_as_well_as_tries(self) -> None:
        now = [0.0]
        tried = Undecided(most_tries=2, patience=30, clock=lambda: now[0])
        pauses = []
        for moment in (0.0, 10.0, 20.0, 29.0):
            now[0] = moment
            with pytest.raises(
                CommandUndecided, match=r"t/0/7 is received again .*: gone"
            ) as raised:
                tried.check(RECORD, self.error, "gone")
            pauses.append(raised.value.pause)
        assert pauses == [0.5, 1.0, 2.0, 4.0]
        now[0] = 30.0
        tried.check(RECORD, self.error, "gone")  # refused
        with pytest.raises(CommandUndecided, match="try 1"):  # a new one at its place
            tried.check(RECORD, self.error, "gone")

    def test_an_outage_is_no_try(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tried = Undecided(most_tries=1, patience=0)
        monkeypatch.setattr(undecided, "_answers", lambda: False)
        for _ in range(10):
            with pytest.raises(OperationalError):
                tried.check(RECORD, self.error, "gone")
        monkeypatch.undo()
        tried.check(RECORD, self.error, "gone")

    def test_what_is_remembered_is_bounded(self) -> None:
        tried = Undecided(most_tries=2, patience=0)
        for offset in range(undecided._MOST_KNOWN + 50):
            with pytest.raises(CommandUndecided):
                tried.check(Record("t", 0, offset, None, None, ()), self.error, "gone")
        assert len(tried._tried) == undecided._MOST_KNOWN
