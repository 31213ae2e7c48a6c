"""The rotating segments of the outbox: emptied as a whole, and never at the cost of a row."""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress

import psycopg
import pytest
from django.db import connection, transaction

from outbox import enqueue
from outbox.models import OutboxMessage
from relay import segments
from relay.segments import RotatingSegments, empty
from relay.timing import POSTGRESQL_TIMING
from tests.unit.waiting import until

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("postgres"),
]

SEGMENT = "outbox_message_0"
INSERT = """
    INSERT INTO outbox_message (message_id, topic, key, key_hash, type, payload, headers,
        correlation_id, traceparent, created_at)
    VALUES (gen_random_uuid(), 't', 'K', 1, 'x', '1', '{}', '', '', now())
"""


def put(key: str = "K") -> int:
    with transaction.atomic():
        return enqueue(topic="t", key=key, type="x", payload=1).id


def put_into_segment_0() -> None:
    put()
    run("UPDATE outbox_message SET segment = 0")


def run(sql: str) -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


def size() -> object:
    return run(f"SELECT pg_relation_size('{SEGMENT}')")[0][0]


def used_up() -> None:
    put_into_segment_0()
    OutboxMessage.objects.all().delete()
    assert size() != 0


def test_what_is_used_up_is_emptied() -> None:
    used_up()
    assert empty(SEGMENT)
    assert size() == 0


def test_one_with_a_row_is_left_alone() -> None:
    put_into_segment_0()
    assert not empty(SEGMENT)
    assert OutboxMessage.objects.count() == 1


def test_a_row_that_commits_between_look_and_truncate_cannot_be(
    other: "psycopg.Connection[tuple[object, ...]]",
) -> None:
    """A transaction that has inserted, and not committed: nobody sees its row, and it is kept."""
    used_up()
    segments.make_current(SEGMENT)
    other.execute(INSERT)
    assert not empty(SEGMENT)
    other.commit()
    assert OutboxMessage.objects.count() == 1
    assert not empty(SEGMENT)
    assert OutboxMessage.objects.count() == 1


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
@pytest.mark.parametrize("before", ["LOCK", "EXISTS", "TRUNCATE"])
def test_a_row_that_commits_at_any_moment_is_kept(
    before: str, isolation: str, other: "psycopg.Connection[tuple[object, ...]]"
) -> None:
    """Just before each of the statements somebody inserts and commits, if he gets that far."""
    used_up()
    segments.make_current(SEGMENT)
    run(f"SET default_transaction_isolation = '{isolation}'")
    inserted: list[str] = []

    def insert_first(execute: Callable[..., object], sql: str, *rest: object) -> object:
        if before in sql and not inserted:
            with suppress(psycopg.errors.LockNotAvailable), other.transaction():
                other.execute("SET LOCAL lock_timeout = '100ms'")
                other.execute(INSERT)
                inserted.append(before)
        return execute(sql, *rest)

    try:
        with connection.execute_wrapper(insert_first):
            emptied = empty(SEGMENT)
    finally:
        run("RESET default_transaction_isolation")
    assert inserted == ([before] if before == "LOCK" else [])
    assert OutboxMessage.objects.count() == len(inserted)
    assert emptied == (not inserted)


def test_somebody_who_reads_is_not_waited_for(
    other: "psycopg.Connection[tuple[object, ...]]",
) -> None:
    """While it tried to lock, inserts would wait behind it."""
    used_up()
    other.execute("SELECT count(*) FROM outbox_message")
    done = threading.Event()
    found: list[bool] = []

    def try_it() -> None:
        try:
            run("SET lock_timeout = 0")
            found.append(empty(SEGMENT))
        finally:
            connection.close()
            done.set()

    thread = threading.Thread(target=try_it)
    thread.start()
    assert done.wait(30)
    thread.join()
    assert found == [False]
    put()
    other.rollback()
    OutboxMessage.objects.all().delete()
    assert empty(SEGMENT)


def current() -> object:
    return run("SELECT last_value FROM outbox_segment")[0][0]


def stored() -> list[object]:
    return [segment for (segment,) in run("SELECT segment FROM outbox_message ORDER BY id")]


def test_new_rows_go_into_the_current_one() -> None:
    for number in (2, 0, 3):
        segments.make_current(f"outbox_message_{number}")
        put()
    assert stored() == [2, 0, 3]


def test_a_transaction_that_is_open_follows_too(
    other: "psycopg.Connection[tuple[object, ...]]",
) -> None:
    other.execute("SELECT count(*) FROM orders_order")
    segments.make_current("outbox_message_1")
    put("K")
    other.execute(INSERT)
    other.commit()
    assert stored() == [1, 1]


def test_all_but_the_current_one_are_emptied() -> None:
    used_up()
    segments.make_current("outbox_message_1")
    RotatingSegments().tend()
    assert size() == 0
    used_up()
    segments.make_current(SEGMENT)
    RotatingSegments().tend()
    assert size() != 0
    assert current() == 1, "an empty one has its turn, and this can be emptied the next time"
    RotatingSegments().tend()
    assert size() == 0


def test_one_that_cannot_be_emptied_does_not_have_its_turn(
    other: "psycopg.Connection[tuple[object, ...]]",
) -> None:
    """A transaction that has enqueued is open, so that nothing of what is deleted in its segment
    can be vacuumed: what came there would be walked over by every read."""
    segments.make_current(SEGMENT)
    other.execute(INSERT)
    turns = []
    for _ in range(9):
        put()
        OutboxMessage.objects.all().delete()
        RotatingSegments().tend()
        turns.append(current())
    assert set(turns) == {1, 2}
    assert sum(each.size for each in segments._segments()) <= 2 * 8192
    other.rollback()
    RotatingSegments().tend()
    assert size() == 0


def test_where_none_can_be_emptied_the_current_one_stays(
    other: "psycopg.Connection[tuple[object, ...]]",
) -> None:
    run("TRUNCATE outbox_message")
    for number in range(4):
        segments.make_current(f"outbox_message_{number}")
        put()
    OutboxMessage.objects.all().delete()
    other.execute("SELECT count(*) FROM outbox_message")
    RotatingSegments().tend()
    assert current() == 3
    other.rollback()
    RotatingSegments().tend()
    assert current() == 0
    assert [each.name for each in segments._segments() if each.size] == ["outbox_message_3"]


def test_nothing_is_asked_where_nothing_was_used() -> None:
    run("TRUNCATE outbox_message")
    looking = RotatingSegments(clock=iter([0.0, 10.0, 20.0, 30.0]).__next__)
    looking.tend()
    asked: list[str] = []

    def note(execute: Callable[..., object], sql: str, *rest: object) -> object:
        asked.append(sql)
        return execute(sql, *rest)

    with connection.execute_wrapper(note):
        looking.tend()
        assert asked == []
        looking.note_deletes()
        looking.tend()
    assert len(asked) == 1


def test_what_cannot_be_emptied_is_tried_less_and_less_often(
    other: "psycopg.Connection[tuple[object, ...]]", monkeypatch: pytest.MonkeyPatch
) -> None:
    used_up()
    other.execute("SELECT count(*) FROM outbox_message")
    segments.make_current("outbox_message_1")
    now = 1000.0
    looking = RotatingSegments(clock=lambda: now)
    tried: list[float] = []

    def note(execute: Callable[..., object], sql: str, *rest: object) -> object:
        if "LOCK" in sql and SEGMENT in sql:
            tried.append(now)
        return execute(sql, *rest)

    with connection.execute_wrapper(note):
        for _ in range(200):
            looking.tend()
            now += 1.0
    assert tried == [1000, 1002, 1006, 1014, 1030, 1062, 1122, 1182]
    looking.note_deletes()
    now += POSTGRESQL_TIMING.segments.first
    other.rollback()
    looking.tend()
    assert size() == 0


def test_growth_is_reported_with_who_is_to_blame(
    other: "psycopg.Connection[tuple[object, ...]]",
    caplog: pytest.LogCaptureFixture,
) -> None:
    used_up()
    segments.make_current("outbox_message_1")
    other.execute("SELECT count(*) FROM outbox_message")

    def is_named() -> bool:
        RotatingSegments(report_bytes=0).tend()
        return "(a dump)" in caplog.text

    with caplog.at_level(logging.WARNING):
        until(is_named)  # PostgreSQL's own vacuum may be there for a moment, and is named then
    assert f"{SEGMENT} cannot be emptied" in caplog.text
