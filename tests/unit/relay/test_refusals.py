"""What the database refuses for good: nothing is published that could not be deleted."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, ProgrammingError, connection, transaction

from outbox.models import OutboxMessage
from relay import refusals
from relay.management.commands import run_outbox_relay
from relay.refusals import Refusal, is_refusal
from tests.unit.relay.scripted import Kafka, left, make_relay, put
from tests.unit.waiting import TIMEOUT, errors, in_thread, until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.on_postgresql]

NO_DELETE = """
    CREATE FUNCTION no_delete() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'nothing is deleted here' USING ERRCODE = '{state}'; END $$;
    CREATE TRIGGER no_delete BEFORE DELETE ON outbox_message FOR EACH {each}
    EXECUTE FUNCTION no_delete();
"""
REFUSED = "P0001"  # raise_exception
DEADLOCK = "40P01"
DELETE_AGAIN = "DROP TRIGGER no_delete ON outbox_message; DROP FUNCTION no_delete"


def run(sql: str) -> None:
    """Change the outbox's triggers beside a relay that runs. DROP TRIGGER locks the segments before
    the table that they are of, and DELETE the table before its segments: without the first lock one
    of the two is ended by a deadlock."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE outbox_message IN ACCESS EXCLUSIVE MODE")
        cursor.execute(sql)


@contextmanager
def refusing(each: str, *, state: str = REFUSED) -> Iterator[None]:
    """Every DELETE on the outbox ends with an error, by statement or by row."""
    run(NO_DELETE.format(each=each, state=state))
    try:
        yield
    finally:
        run(DELETE_AGAIN)


def test_where_nothing_can_be_deleted_nothing_is_published(
    caplog: pytest.LogCaptureFixture,
) -> None:
    put("a", "b")
    broker = Kafka()
    relay = make_relay(broker)
    cycles = threading.Semaphore(0)
    relay._alive = cycles.release
    with refusing("STATEMENT"), in_thread(relay.run):
        for _ in range(10):
            assert cycles.acquire(timeout=TIMEOUT)
        assert broker.accepted == []
        [error] = errors(caplog)
        assert "nothing is deleted here" in error
        assert "\n" not in error
        assert "answer" not in caplog.text, "it is no outage"
        run(DELETE_AGAIN)
        until(lambda: left() == 0)
        run(NO_DELETE.format(each="STATEMENT", state=REFUSED))
    assert len(broker.accepted) == 2


def test_what_is_published_and_cannot_be_deleted_is_not_published_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The refusal comes with the first row only."""
    put(*"abcd" * 5)
    broker = Kafka()
    relay = make_relay(broker, batch_size=4)
    cycles = threading.Semaphore(0)
    relay._alive = cycles.release
    with refusing("ROW"), in_thread(relay.run):
        until(lambda: errors(caplog))
        for _ in range(20):
            assert cycles.acquire(timeout=TIMEOUT)
        assert len(broker.accepted) <= 12, "three batches are in flight at most"
        assert len(errors(caplog)) == 1
        run(DELETE_AGAIN)
        until(lambda: left() == 0)
        run(NO_DELETE.format(each="ROW", state=REFUSED))
    assert [broker.order_of(key) for key in "ab"] == [[0, 4, 8, 12, 16], [1, 5, 9, 13, 17]]


def test_a_delete_that_a_deadlock_ends_is_done_again(caplog: pytest.LogCaptureFixture) -> None:
    """Such as one with a migration of somebody else's: it passes, and nobody has to mend it."""
    put(*"abcd" * 5)
    broker = Kafka()
    relay = make_relay(broker, batch_size=4)
    cycles = threading.Semaphore(0)
    relay._alive = cycles.release
    with refusing("ROW", state=DEADLOCK), in_thread(relay.run):
        until(lambda: "nothing is deleted here" in caplog.text)
        for _ in range(5):
            assert cycles.acquire(timeout=TIMEOUT)
        assert len(broker.accepted) <= 12, "three batches are in flight at most"
        assert errors(caplog) == []
        run(DELETE_AGAIN)
        until(lambda: left() == 0)
        run(NO_DELETE.format(each="ROW", state=REFUSED))
    assert [broker.order_of(key) for key in "ab"] == [[0, 4, 8, 12, 16], [1, 5, 9, 13, 17]]
    assert len(broker.accepted) == 20


def test_drain_ends_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    put("a")
    for name in ("check", "ensure_topics"):
        monkeypatch.setattr(Kafka, name, lambda *_: None)
    monkeypatch.setattr(run_outbox_relay, "broker_from_url", lambda *_, **__: Kafka())
    monkeypatch.setattr(run_outbox_relay, "stop_on_signals", threading.Event)
    monkeypatch.setattr(run_outbox_relay, "spare_the_collector", lambda: None)
    with refusing("STATEMENT"), pytest.raises(CommandError, match="nothing is deleted here"):
        call_command("run_outbox_relay", "--drain")
    assert OutboxMessage.objects.count() == 1


def refused(state: str, text: str = "no") -> Exception:
    error = ProgrammingError(text)
    error.__cause__ = type("Cause", (Exception,), {"sqlstate": state})()
    return error


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("42501", "docs/how-to/database-roles.md"),
        ("42P01", "manage.py migrate"),
        ("42P10", "mend it"),
        ("0A000", "mend it"),
    ],
)
def test_each_refusal_says_what_to_do(state: str, expected: str) -> None:
    assert is_refusal(refused(state))
    assert expected in refusals.advice(refused(state))


def test_a_replica_identity_that_is_not_taken_is_to_be_given_back() -> None:
    error = refused("42P10", "Replica identity must not contain unpublished generated columns.")
    assert "REPLICA IDENTITY USING INDEX" in refusals.advice(error)


@pytest.mark.parametrize("state", ["08006", "25006", "40P01", "53100", "55P03", "57014", "57P01"])
def test_what_passes_is_no_refusal(state: str) -> None:
    assert not is_refusal(refused(state))


def test_what_did_not_come_from_the_server_is_no_refusal() -> None:
    assert not is_refusal(OperationalError("server closed the connection unexpectedly"))


def test_it_is_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    refusal = Refusal(clock=lambda: now)
    error = ProgrammingError("no")
    for _ in range(119):
        refusal.refused(error)
        now += 1.0
    assert len(errors(caplog)) == 2
    refusal.over()
    refusal.refused(error)
    assert len(errors(caplog)) == 3
