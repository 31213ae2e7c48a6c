"""A key with thousands of messages is parked and put back by PostgreSQL itself."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from outbox import interventions
from outbox.lanes import lane_of
from outbox.models import OutboxMessage, ParkedMessage
from outbox.murmur2 import murmur2
from relay.lanes import LeasedLanes
from relay.postgresql_store import PostgreSQLStore
from saga_runtime.interventions import By

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("postgres"),
]

COUNT = 5_000
MOST_STATEMENTS = 15
MOST_BYTES = 10_000
LANE = lane_of("bad")
BESIDE = next(key for key in map(str, range(9999)) if lane_of(key) == LANE)


@pytest.fixture
def ids() -> list[int]:
    """Of the key `bad`; in its lane there is another key too."""
    ParkedMessage.objects.all().delete()
    OutboxMessage.objects.bulk_create(
        OutboxMessage(
            topic="t",
            key=key,
            key_hash=murmur2(key.encode()),
            type="x",
            payload=b"1",
            headers={"n": n},
        )
        for n in range(COUNT)
        for key in (("bad", BESIDE) if n < 2 else ("bad",))
    )
    return [*OutboxMessage.objects.filter(key="bad").values_list("id", flat=True)]


def messages(model: type[OutboxMessage | ParkedMessage]) -> list[tuple[object, ...]]:
    """All that a message is, of the key `bad`, in order."""
    fields = [field.name for field in OutboxMessage._meta.fields]
    found = model._default_manager.filter(key="bad").order_by("id").values_list(*fields)
    return [tuple(bytes(v) if isinstance(v, memoryview) else v for v in row) for row in found]


def park(reasons: dict[int, str]) -> int:
    lanes = LeasedLanes("a")
    lanes.tend(busy=())
    try:
        found = PostgreSQLStore("a").park({"bad": LANE}, reasons=reasons, epochs=lanes.held)
    finally:
        lanes.release()
    assert set(found) <= {"bad"}
    return found["bad"]


def test_thousands_are_parked_and_put_back_in_order(ids: list[int]) -> None:
    before = messages(OutboxMessage)
    assert [row[0] for row in before] == ids
    with CaptureQueriesContext(connection) as parking:
        assert park({ids[7]: "too large", -1: "of another lane"}) == COUNT
    assert messages(ParkedMessage) == before
    assert messages(OutboxMessage) == []
    reasons = dict(ParkedMessage.objects.values_list("id", "reason"))
    assert reasons.pop(ids[7]) == "too large"
    assert set(reasons.values()) == {"waits behind a parked message of its key"}

    with CaptureQueriesContext(connection) as putting_back:
        assert interventions.retry("bad", by=By("ann", "the limit is raised")) == COUNT
    assert messages(OutboxMessage) == before
    assert not ParkedMessage.objects.exists()
    assert OutboxMessage.objects.filter(key=BESIDE).count() == 2
    for said in (parking, putting_back):
        assert len(said) <= MOST_STATEMENTS
        assert sum(len(query["sql"]) for query in said) <= MOST_BYTES


def test_a_move_that_takes_longer_than_a_statement_may(ids: list[int]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = '1s'")
        try:
            cursor.execute(
                "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN PERFORM pg_sleep(1.1); RETURN NULL; END $$;"
                "CREATE TRIGGER slow AFTER INSERT ON outbox_parked EXECUTE FUNCTION slow()"
            )
            assert park({ids[0]: "too large"}) == COUNT
        finally:
            cursor.execute("RESET statement_timeout; DROP FUNCTION slow CASCADE")


def test_what_the_broker_has_not_refused_stays(ids: list[int]) -> None:
    assert park({}) == 0
    assert OutboxMessage.objects.filter(key="bad").count() == COUNT
