"""The thread that tells relays of commits, with a database that does as the test says."""

import logging
import threading
from collections.abc import Callable
from typing import cast

import psycopg
import pytest
from django.conf import settings
from django.db import transaction

from outbox import enqueue
from outbox.waking import Connect, Notifier, Timing
from relay.listening import woken_by_commits
from tests.unit.waiting import until


class Database:
    """Counts notifications; `gate` holds them up, `fail` says what goes wrong."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.fail: Callable[[], bool] = lambda: False
        self.began = self.sent = self.connected = self.closed = 0
        self.pgconn = self
        self.status = psycopg.pq.ExecStatus.COMMAND_OK

    def connect(self, name: str) -> "Database":
        assert name == "outbox wake-up"
        if self.fail():
            raise psycopg.OperationalError("nobody\nthere")
        self.connected += 1
        return self

    def exec_(self, statement: bytes) -> "Database":
        assert statement == b"NOTIFY outbox"
        self.began += 1
        self.gate.wait()
        if self.fail():
            self.status = psycopg.pq.ExecStatus.FATAL_ERROR
        else:
            self.status = psycopg.pq.ExecStatus.COMMAND_OK
            self.sent += 1
        return self

    def get_error_message(self) -> str:
        return "nobody\nthere"

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def notifier(database: Database) -> Notifier:
    timing = Timing(debounce=0, retry_after=0.001)
    return Notifier(connect=cast("Connect", database.connect), timing=timing)


def test_commits_of_a_moment_share_a_notification(database: Database, notifier: Notifier) -> None:
    database.gate.clear()
    notifier.ask()
    until(lambda: database.began == 1)
    for _ in range(100):
        notifier.ask()
    database.gate.set()
    until(lambda: database.sent == 2)
    notifier.ask()
    until(lambda: database.sent == 3)
    assert database.connected == 1


def test_asking_never_waits(database: Database, notifier: Notifier) -> None:
    database.gate.clear()
    for _ in range(3):
        notifier.ask()
    until(lambda: database.began == 1)
    assert database.sent == 0
    database.gate.set()


def test_a_connection_that_broke_is_made_anew_at_once(
    database: Database, notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    notifier.ask()
    until(lambda: database.sent == 1)
    failures = iter([True])
    database.fail = lambda: next(failures, False)
    notifier.ask()
    until(lambda: database.sent == 2)
    assert (database.connected, database.closed) == (2, 1)
    assert not caplog.records


def test_an_outage_is_one_line_in_the_log(
    database: Database, notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    tries = iter([True] * 5)
    failed: list[bool] = []

    def fail() -> bool:
        failed.append(next(tries, False))
        return failed[-1]

    database.fail = fail
    with caplog.at_level(logging.WARNING):
        for count in range(1, 6):
            notifier.ask()
            until(lambda: len(failed) >= count)  # noqa: B023 - it is called here
        notifier.ask()
        until(lambda: database.sent)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["relays are not woken, they poll: nobody there"]


def test_a_forked_process_has_a_thread_of_its_own(database: Database, notifier: Notifier) -> None:
    notifier.ask()
    until(lambda: database.sent == 1)
    notifier.begin_anew()
    assert notifier._thread is None
    notifier.ask()
    until(lambda: database.sent == 2)
    assert database.connected == 2


def test_an_idle_connection_is_given_back_and_made_anew(database: Database) -> None:
    timing = Timing(debounce=0, idle=0.01)
    notifier = Notifier(connect=cast("Connect", database.connect), timing=timing)
    for count in range(1, 4):
        notifier.ask()
        until(lambda: database.sent == count)  # noqa: B023 - it is called here
        until(lambda: database.closed == count)  # noqa: B023 - it is called here
    assert database.connected == 3


@pytest.mark.on_sqlite
@pytest.mark.django_db(transaction=True)
def test_sqlite_has_no_wake_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "SAGA_OUTBOX", settings.SAGA_OUTBOX | {"WAKE_UP": True})
    threads = threading.active_count()
    with transaction.atomic():
        enqueue(topic="t", key="K", type="x", payload=1)
    assert threading.active_count() == threads
    with woken_by_commits() as woken:
        assert threading.active_count() == threads
        assert not woken.is_set()
