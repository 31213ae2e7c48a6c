"""Leases of lanes: who may publish what, as relays come, go, die and sleep."""

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import psycopg
import pytest
from django.db import DataError, OperationalError, connection, transaction

from outbox import enqueue
from outbox.models import LANES, OutboxLane, OutboxMessage, OutboxRelay, ParkedMessage
from relay import postgresql_store
from relay.lanes import LeasedLanes
from relay.postgresql_store import PostgreSQLStore
from relay.store import Row
from tests.unit.waiting import until

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("postgres", "_no_relays"),
]

ALL = set(range(LANES))
STORE = PostgreSQLStore("a")
SHARES = [("a", LANES), ("b", 2), ("c", 16)]


class Clock:
    """The relay's own clock; the leases themselves go by the database's."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def _no_relays() -> None:
    OutboxLane.objects.all().delete()
    OutboxRelay.objects.all().delete()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def relay(clock: Clock) -> Callable[[str], LeasedLanes]:
    return lambda name: LeasedLanes(name, clock=clock)


def pass_time(clock: Clock, *relays: LeasedLanes, busy: set[int] = frozenset()) -> None:  # type: ignore[assignment]
    """Every relay tends its lanes again, twice: one may wait for what the other gives up."""
    for _ in range(2):
        for each in relays:
            each.tend_soon()
            each.tend(busy=busy)
        clock.now += 0.1


def expire(name: str) -> None:
    """The database's clock has passed the leases of this relay."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE outbox_lane SET until = now() - interval '1 second' WHERE owner = %s", [name]
        )
        cursor.execute(
            "UPDATE outbox_relay SET until = now() - interval '1 second' WHERE id = %s", [name]
        )


Relays = Callable[[str], LeasedLanes]


@pytest.fixture
def held(relay: Callable[[str], LeasedLanes]) -> dict[int, int]:
    """Every lane, of a relay named `a`."""
    a = relay("a")
    a.tend(busy=())
    return dict(a.held)


def head(held: dict[int, int], *, limit: int = 9, **options: Any) -> list[Row]:
    """What the relay named `a` reads."""
    lanes = options.pop("lanes", sorted(held))
    options = {"in_flight": (), "lane_limit": limit, **options}
    return STORE.head(lanes, epochs=held, limit=limit, **options).result()


def test_one_relay_has_all(relay: Relays) -> None:
    a = relay("a")
    assert a.tend(busy=()) == set()
    assert set(a.held) == ALL
    assert set(a.held.values()) == {1}


def test_a_second_one_gets_half_once_the_first_has_drained_it(clock: Clock, relay: Relays) -> None:
    a, b = relay("a"), relay("b")
    a.tend(busy=())
    b.tend(busy=())
    assert b.held == {}
    a.tend_soon()
    a.tend(busy=ALL)
    assert len(a.draining) == LANES // 2
    assert set(a.held) == ALL  # nothing is given up while something of it is under way
    pass_time(clock, a, b)
    assert len(a.held) == len(b.held) == LANES // 2
    assert set(a.held) | set(b.held) == ALL
    assert set(b.held.values()) == {2}


def test_three_share_and_none_has_what_another_has(clock: Clock, relay: Relays) -> None:
    relays = [relay(name) for name in "abc"]
    for _ in range(3):
        pass_time(clock, *relays)
    held = [set(each.held) for each in relays]
    assert sorted(map(len, held)) == [10, 11, 11]
    assert set.union(*held) == ALL


def test_the_lanes_of_one_that_stops_are_free_at_once(clock: Clock, relay: Relays) -> None:
    a, b = relay("a"), relay("b")
    pass_time(clock, a, b)
    a.release()
    pass_time(clock, b)
    assert set(b.held) == ALL


def test_the_lanes_of_a_dead_one_are_free_after_its_lease(clock: Clock, relay: Relays) -> None:
    a, b = relay("a"), relay("b")
    a.tend(busy=())
    pass_time(clock, b)
    assert b.held == {}
    expire("a")
    pass_time(clock, b)
    assert set(b.held) == ALL


def test_one_that_has_slept_past_its_lease_holds_nothing(clock: Clock, relay: Relays) -> None:
    a, b = relay("a"), relay("b")
    a.tend(busy=())
    expire("a")
    b.tend(busy=())
    clock.now += 60
    assert a.tend(busy=ALL) == ALL
    assert a.held == {}


def test_one_that_has_slept_unnoticed_goes_on(clock: Clock, relay: Relays) -> None:
    a = relay("a")
    a.tend(busy=())
    expire("a")
    clock.now += 60
    a.tend(busy=())
    assert set(a.held) == ALL


def test_what_others_have_had_meanwhile_was_lost(clock: Clock, relay: Relays) -> None:
    """It has the lanes again, and what it has queued of them is no longer its to send."""
    a, b = relay("a"), relay("b")
    a.tend(busy=())
    expire("a")
    b.tend(busy=())
    b.release()
    clock.now += 60
    assert a.tend(busy=ALL) == ALL
    assert set(a.held) == ALL
    assert set(a.held.values()) == {3}
    a.tend_soon()
    assert a.tend(busy=ALL) == set()


def test_a_loss_is_told_once_the_database_answers_again(
    clock: Clock, relay: Relays, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = relay("a"), relay("b")
    a.tend(busy=())
    expire("a")
    b.tend(busy=())
    clock.now += 60
    with monkeypatch.context() as patch:
        patch.setattr(a, "_renew_and_claim", Mock(side_effect=OperationalError))
        for _ in range(2):
            with pytest.raises(OperationalError):
                a.tend(busy=ALL)
    assert a.tend(busy=ALL) == ALL


def test_at_most_so_many(clock: Clock) -> None:
    a = LeasedLanes("a", clock=clock, lanes_max=5)
    a.tend(busy=())
    assert len(a.held) == 5


def test_the_others_have_what_one_may_not_take(clock: Clock) -> None:
    """Else nobody would ever publish it."""
    relays = [LeasedLanes(name, clock=clock, lanes_max=most) for name, most in SHARES]
    for _ in range(3):
        pass_time(clock, *relays)
    assert sorted(len(each.held) for each in relays) == [2, 15, 15]
    assert set.union(*(set(each.held) for each in relays)) == ALL


class TestWhatAStaleRelayDoes:
    """Another relay has its lanes: it reads nothing, deletes nothing and parks nothing."""

    @pytest.fixture
    def row(self, held: dict[int, int]) -> Row:
        with transaction.atomic():
            enqueue(topic="t", key="K", type="x", payload=1)
        (row,) = head(held)
        return row

    @pytest.fixture
    def stale(self, row: Row, held: dict[int, int], relay: Relays) -> dict[int, int]:  # noqa: ARG002 - read before
        expire("a")
        relay("b").tend(busy=())
        return held

    def test_no_read(self, row: Row, stale: dict[int, int]) -> None:
        assert head(stale) == []
        assert STORE.first_of([row.id], stale) is None

    def test_no_read_under_an_older_epoch_of_its_own(
        self, row: Row, stale: dict[int, int], relay: Relays
    ) -> None:
        expire("b")
        again = relay("a")
        again.tend(busy=())
        assert head(stale) == []
        assert STORE.first_of([row.id], stale) is None
        assert head(again.held) == [row]
        assert STORE.first_of([row.id], again.held) == row

    def test_it_reads_the_lanes_that_it_still_has(self, row: Row, held: dict[int, int]) -> None:
        OutboxLane.objects.exclude(lane=row.lane).update(owner="b")
        assert head(held) == [row]
        OutboxLane.objects.filter(lane=row.lane).update(owner="b")
        assert head(held) == []

    def test_no_delete(self, row: Row, stale: dict[int, int]) -> None:
        STORE.delete([row], stale)
        assert OutboxMessage.objects.count() == 1

    def test_no_delete_under_an_older_epoch_of_its_own(
        self, row: Row, stale: dict[int, int], relay: Relays
    ) -> None:
        expire("b")
        again = relay("a")
        again.tend(busy=())
        STORE.delete([row], stale)
        assert OutboxMessage.objects.count() == 1
        STORE.delete([row], again.held)
        assert OutboxMessage.objects.count() == 0

    def test_no_parking(self, row: Row, stale: dict[int, int]) -> None:
        assert STORE.park({"K": row.lane}, reasons={}, epochs=stale).total() == 0
        assert not ParkedMessage.objects.exists()
        assert OutboxMessage.objects.count() == 1


def test_a_lane_is_read_from_its_head_without_what_is_under_way(held: dict[int, int]) -> None:
    with transaction.atomic():
        ids = [enqueue(topic="t", key="K", type="x", payload=n).id for n in range(5)]
    assert [row.id for row in head(held, limit=2)] == ids[:2]
    under_way = head(held)[1:3]
    assert [row.id for row in head(held, in_flight=under_way)] == [ids[0], *ids[3:]]
    (lane,) = {row.lane for row in head(held)}
    assert head(held, lanes=sorted(ALL - {lane})) == []


def test_a_long_lane_keeps_no_other_waiting(held: dict[int, int]) -> None:
    with transaction.atomic():
        for n in range(20):
            enqueue(topic="t", key="long", type="x", payload=n)
        enqueue(topic="t", key="short", type="x", payload=0)
    keys = {row.key for row in head(held, limit=10, lane_limit=5)}
    assert keys == {"long", "short"}


def test_segments_are_read_together_by_id(held: dict[int, int]) -> None:
    with transaction.atomic():
        ids = [enqueue(topic="t", key="K", type="x", payload=n).id for n in range(4)]
    with connection.cursor() as cursor:
        cursor.execute("UPDATE outbox_message SET segment = (3 - id % 4)")
    assert [row.id for row in head(held)] == ids


def test_the_plan_walks_no_table() -> None:
    """Planned on an empty table, on which a sequential scan would look cheaper."""
    with transaction.atomic(), connection.cursor() as cursor:
        statement = postgresql_store._HEAD.replace("SELECT m.id", "EXPLAIN SELECT m.id", 1)
        cursor.execute(
            f"{postgresql_store._PLAN}; {statement}",
            ["{1,2}", "{1,0}", "{}", 9, "{1,2}", "{1,1}", "a", 9],
        )
        cursor.cursor.nextset()
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Seq Scan on outbox_message" not in plan
    assert "Index" in plan


def test_no_plan_is_compiled_first() -> None:
    """PostgreSQL does that to what it takes for costly, such as a sort that is off."""
    with transaction.atomic(), connection.cursor() as cursor:
        statement = f"{postgresql_store._PLAN}; EXPLAIN {postgresql_store._FIRST}"
        cursor.execute(statement, ["{1,2}", "{1,1}", "a", "{7,8}"])
        cursor.cursor.nextset()
        assert "JIT" not in "".join(line for (line,) in cursor.fetchall())


def test_what_a_read_says_of_plans_ends_with_it() -> None:
    setting = "SELECT current_setting('enable_seqscan')"
    assert [tuple(row) for row in postgresql_store._ask(setting, []).result()] == [("off",)]
    with connection.cursor() as cursor:
        cursor.execute(setting)
        assert cursor.fetchone() == ("on",)


def test_a_read_that_failed_leaves_no_transaction_behind() -> None:
    with pytest.raises(DataError):
        postgresql_store._ask("SELECT 1 / 0", []).result()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def test_a_read_has_committed_before_its_answer_is_fetched(
    other: psycopg.Connection[tuple[object, ...]],
) -> None:
    """So that it keeps no segment from being emptied."""
    locks = "SELECT count(*) FROM pg_locks WHERE pid = %s AND locktype = 'relation'"

    def count() -> object:
        (found,) = other.execute(locks, [connection.connection.info.backend_pid]).fetchall()
        return found[0]

    connection.ensure_connection()
    with transaction.atomic():
        assert OutboxMessage.objects.first() is None
        assert count() != 0
    answer = postgresql_store._ask("SELECT id FROM outbox_message", [])
    until(lambda: count() == 0)
    assert answer.result() == []
