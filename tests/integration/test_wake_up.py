"""Commits wake the relay, on PostgreSQL."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from django.conf import settings
from django.db import connection, transaction

from brokers.memory import MemoryBroker
from outbox import NewMessage, direct, enqueue, enqueue_many, waking
from outbox.interventions import retry
from outbox.models import OutboxMessage, ParkedMessage
from outbox.waking import Notifier
from relay.assembly import assemble_relay
from relay.listening import woken_by_commits
from relay.timing import Timing
from saga_runtime.interventions import By
from tests import processes

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("postgres"),
]

PATIENCE = 60.0

Other = psycopg.Connection[tuple[object, ...]]


@pytest.fixture(autouse=True)
def _as_outside_of_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test runner's process has no connection beside Django's."""
    monkeypatch.setattr(waking, "_in_tests", lambda: False)


def put(*, key: str = "K") -> None:
    enqueue(topic="shop.events", key=key, type="shop.sold", payload=1)


def put_and_commit() -> None:
    with transaction.atomic():
        put()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.005)


class TestAsking:
    """Once for each transaction that has committed something."""

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        asked: list[int] = []
        monkeypatch.setattr(waking.notifier, "ask", lambda: asked.append(1))
        return asked

    def test_after_the_commit(self, asked: list[int]) -> None:
        with transaction.atomic():
            put()
            put(key="L")
            enqueue_many([NewMessage(topic="t", key="M", type="x", payload=1)])
            assert asked == []
        assert asked == [1]

    def test_not_after_a_rollback(self, asked: list[int]) -> None:
        with transaction.atomic():
            put()
            transaction.set_rollback(True)
        assert asked == []

    def test_not_for_what_a_savepoint_took_back(self, asked: list[int]) -> None:
        with transaction.atomic():
            with transaction.atomic():
                put()
                transaction.set_rollback(True)
            enqueue_many([])
        assert asked == []

    def test_for_what_comes_after_a_savepoint_that_was_rolled_back(self, asked: list[int]) -> None:
        with transaction.atomic():
            with transaction.atomic():
                put()
                transaction.set_rollback(True)
            put()
        assert asked == [1]

    def test_for_what_came_before_one(self, asked: list[int]) -> None:
        with transaction.atomic():
            put()
            with transaction.atomic():
                put()
                transaction.set_rollback(True)
        assert asked == [1]

    def test_whatever_else_fails_after_the_commit(self, asked: list[int]) -> None:
        with transaction.atomic():
            transaction.on_commit(lambda: 1 / 0, robust=True)
            put()
        assert asked == [1]

    def test_not_where_it_is_switched_off(
        self, asked: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(settings, "SAGA_OUTBOX", settings.SAGA_OUTBOX | {"WAKE_UP": False})
        put_and_commit()
        assert asked == []
        with woken_by_commits() as woken:
            assert not any(t.name == "wake-ups" for t in threading.enumerate())
            assert not woken.is_set()


@pytest.fixture
def notifier(monkeypatch: pytest.MonkeyPatch) -> Notifier:
    """One whose connection goes to this module's database."""
    made = Notifier()
    monkeypatch.setattr(waking, "notifier", made)
    return made


def test_the_notification_comes_on_a_connection_of_its_own(
    notifier: Notifier, other: Other
) -> None:
    other.autocommit = True
    other.execute(f"LISTEN {direct.CHANNEL}")
    put_and_commit()
    (heard,) = other.notifies(timeout=PATIENCE, stop_after=1)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        assert cursor.fetchone() != (heard.pid,)


def test_what_is_put_back_wakes_too(other: Other) -> None:
    put_and_commit()
    parked = OutboxMessage.objects.values("id", "message_id", "topic", "key", "key_hash", "payload")
    ParkedMessage.objects.create(reason="too large", **parked.get())
    OutboxMessage.objects.all().delete()
    other.autocommit = True
    other.execute(f"LISTEN {direct.CHANNEL}")
    assert retry("K", by=By("ops", "larger messages are taken now")) == 1
    assert [*other.notifies(timeout=PATIENCE, stop_after=1)]


def end_all(other: Other, name: str) -> None:
    """As a server that is started again does."""
    other.autocommit = True
    until(
        lambda: other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = %s AND datname = current_database()",
            [name],
        ).fetchall()
    )


@pytest.mark.parametrize("name", ["outbox wake-up", "outbox relay, listening"])
def test_either_side_connects_again(notifier: Notifier, other: Other, name: str) -> None:
    with woken_by_commits() as woken:
        assert woken.wait(PATIENCE)  # once, for what was committed before
        woken.clear()
        put_and_commit()
        assert woken.wait(PATIENCE)
        end_all(other, name)
        # Who listens says so once it is back.
        for _ in range(2):
            woken.clear()
            put_and_commit()
            assert woken.wait(PATIENCE)


def test_a_commit_wakes_an_idle_relay(notifier: Notifier) -> None:
    """One that would look again after an hour."""
    timing = Timing(shortest_poll=3600.0, longest_poll=3600.0)
    stop = threading.Event()
    with woken_by_commits() as woken:
        relay = assemble_relay(MemoryBroker(), source="/tests", woken=woken, timing=timing)
        running = threading.Thread(target=relay.run, args=(stop,))
        running.start()
        try:
            for count in range(1, 4):
                put_and_commit()
                until(lambda: relay.published == count)  # noqa: B023 - it is called here
            assert not OutboxMessage.objects.exists()
        finally:
            stop.set()
            running.join(PATIENCE)


FORKING = """
import os, django
django.setup()
from django.db import connection, transaction
from outbox import enqueue

def put():
    with transaction.atomic():
        enqueue(topic="t", key="K", type="x", payload=1)

put()
connection.close()
connection.close_pool()
child = os.fork()
put()
if child:
    assert os.waitpid(child, 0)[1] == 0
input()
"""


def test_a_forked_process_notifies_too(other: Other, tmp_path: Path) -> None:
    other.autocommit = True
    other.execute(f"LISTEN {direct.CHANNEL}")
    params = connection.get_connection_params()
    credentials = f"{quote(params['user'])}:{quote(params.get('password', ''))}"
    url = urlsplit(f"postgres://{credentials}@{params['host']}:{params['port']}")
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", FORKING],
        env=processes.environment(tmp_path)
        | {
            "DATABASE_URL": url._replace(path=f"/{params['dbname']}").geturl(),
            "DJANGO_SETTINGS_MODULE": "config.settings",
        },
        cwd=processes.ROOT,
        stdin=subprocess.PIPE,
    )
    heard: set[int] = set()
    with process:
        for notify in other.notifies(timeout=PATIENCE):
            heard.add(notify.pid)
            if len(heard) == 2:
                break
        process.kill()
    assert len(heard) == 2
