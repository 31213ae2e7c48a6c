"""A transaction enqueues under so many keys: PostgreSQL's table of locks is everybody's."""

import threading

import pytest
from django.db import connection, transaction

from outbox import NewMessage, TooManyKeys, enqueue, enqueue_many
from outbox.keys import MOST_KEYS
from outbox.models import OutboxMessage, ParkedMessage
from relay.postgresql_store import PostgreSQLStore
from tests.unit.relay.scripted import Kafka, make_relay

pytestmark = pytest.mark.django_db(transaction=True)


def messages(count: int, *, start: int = 0) -> list[NewMessage]:
    return [
        NewMessage(topic="t", key=f"K-{number}", type="x", payload=1)
        for number in range(start, start + count)
    ]


def put(key: str) -> None:
    enqueue(topic="t", key=key, type="x", payload=1)


def test_as_many_as_may_be() -> None:
    with transaction.atomic():
        enqueue_many(messages(MOST_KEYS))
        put("K-0")
        enqueue_many(messages(MOST_KEYS))
    assert OutboxMessage.objects.count() == 2 * MOST_KEYS + 1


def test_one_more_is_refused_before_anything_is_written() -> None:
    with transaction.atomic():
        with pytest.raises(TooManyKeys, match=r"more than 1,000 keys.* Commit at most 1,000"):
            enqueue_many(messages(20_000))
        put("another")
    assert OutboxMessage.objects.count() == 1


def test_it_counts_whatever_is_between() -> None:
    with transaction.atomic():
        enqueue_many(messages(MOST_KEYS - 1))
        transaction.on_commit(lambda: None)
        with transaction.atomic():
            put("in a savepoint")
        transaction.on_commit(lambda: None)
        with pytest.raises(TooManyKeys):
            put("one too many")


def test_each_transaction_counts_for_itself() -> None:
    for start in (0, MOST_KEYS):
        with transaction.atomic():
            enqueue_many(messages(MOST_KEYS, start=start))
            transaction.set_rollback(start == 0)
    assert OutboxMessage.objects.count() == MOST_KEYS


def test_a_savepoint_that_is_taken_back_gives_its_keys_back() -> None:
    with transaction.atomic():
        with transaction.atomic():
            enqueue_many(messages(MOST_KEYS))
            transaction.set_rollback(True)
        enqueue_many(messages(MOST_KEYS, start=MOST_KEYS))
    assert OutboxMessage.objects.count() == MOST_KEYS


@pytest.mark.on_postgresql
def test_a_relay_parks_many_keys_in_parts() -> None:
    """It takes the keys' locks, too."""
    held: list[int] = []

    def note(execute: object, sql: str, *rest: object) -> object:
        answer = execute(sql, *rest)  # type: ignore[operator]
        if "INSERT INTO outbox_parked" in sql:
            with connection.cursor() as cursor:
                cursor.connection.execute("SELECT 1")
                found = cursor.connection.execute(
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
                    " AND pid = pg_backend_pid()"
                ).fetchone()
                held.append(found[0])
        return answer

    with transaction.atomic():
        enqueue_many(messages(35))
    relay = make_relay(
        Kafka(lambda batch: ["unsent"] * len(batch)),
        store=PostgreSQLStore("tests", keys_at_a_time=10),
    )
    with connection.execute_wrapper(note):
        relay.drain(threading.Event())
    assert ParkedMessage.objects.count() == 35
    assert held
    assert max(held) <= 10
