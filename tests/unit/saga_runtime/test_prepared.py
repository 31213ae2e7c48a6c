"""Statements of one round trip, prepared once on each connection."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import (
    DataError,
    Error,
    IntegrityError,
    NotSupportedError,
    OperationalError,
    connection,
    transaction,
)
from django.db.backends.signals import connection_created
from psycopg import IsolationLevel

from saga_runtime import prepared
from saga_runtime.database_errors import is_conflict, is_outage, keeps_waiting
from saga_runtime.hang_watch import Watch
from saga_runtime.round_trips import run, run_together

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.on_postgresql]

INSERT = "INSERT INTO tests_things (name, number) VALUES (%s, %s) RETURNING id"
NAMES = "SELECT name FROM tests_things ORDER BY id"
COUNT = "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'saga_outbox%%'"


@pytest.fixture(autouse=True)
def _things() -> Iterator[None]:
    """A table, and a connection that has prepared nothing."""
    connection.close()
    connection.close_pool()  # type: ignore[attr-defined]
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE tests_things (id bigserial PRIMARY KEY, name text UNIQUE, number int)"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE tests_things")


def by_cursor(text: str, *values: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(text, values)
        return cursor.fetchall() if cursor.description else []


def how_many() -> int:
    """Statements of ours that the server has prepared for this connection."""
    return int(by_cursor(COUNT)[0][0])


def test_values_come_back_as_they_were() -> None:
    values = [
        7, "it's \\ %s %% $1 {0}", None, True, Decimal("1.50"), b"\0\1", UUID(int=5),
        datetime(2026, 11, 28, 12, tzinfo=UTC), [1, 2], ["a", None],
    ]  # fmt: skip
    kinds = "int text text bool numeric bytea uuid timestamptz int[] text[]"
    text = "SELECT " + ", ".join(f"%s::{kind}" for kind in kinds.split())
    for _ in range(3):
        assert run(text, values) == [tuple(values)]


def test_a_placeholder_is_no_percent_sign() -> None:
    assert run("SELECT 'a%%b', %s::text, 7 %% 4", ["c%d"]) == [("a%b", "c%d", 3)]


class TestPreparing:
    def test_is_done_once_for_each_text_and_types(self) -> None:
        run(NAMES, [])  # the server is asked who it is
        assert how_many() == 0
        for number in range(10):
            run_together((INSERT, [f"n{number}", number]), (NAMES, []))
        assert how_many() == 2
        run(INSERT, ["big", 2**20])  # another type of a parameter
        assert how_many() == 3
        assert len(run(NAMES, [])) == 11

    def test_is_not_done_behind_a_pooler(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It gives each client a number of its own, where the server gives its session's."""
        monkeypatch.setattr(prepared, "_WHO_ANSWERS", ("SELECT 0", []))
        for number in range(5):
            run(INSERT, [f"n{number}", number])
        assert how_many() == 0

    def test_is_not_done_where_it_is_switched_off(self, settings: Any) -> None:
        settings.SAGA_OUTBOX = settings.SAGA_OUTBOX | {"PREPARED_STATEMENTS": False}
        for number in range(5):
            run(INSERT, [f"n{number}", number])
        assert how_many() == 0

    def test_is_not_done_beside_psycopgs_own(self) -> None:
        """That lets go of everything after a rollback, ours too."""
        connection.ensure_connection()
        connection.connection.prepare_threshold = 5
        for number in range(5):
            run(INSERT, [f"n{number}", number])
        assert how_many() == 0
        connection.close()
        connection.close_pool()  # type: ignore[attr-defined]

    def test_goes_on_however_often_all_is_let_go_of(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(prepared, "MOST", 3)
        for _ in range(5):
            assert run(NAMES, []) == []
            by_cursor("DEALLOCATE ALL")
        run(NAMES, [])
        assert how_many() == 1

    def test_has_a_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(prepared, "MOST", 3)
        for number in range(10):
            assert run(f"SELECT {number}", []) == [(number,)]
        assert how_many() == 3

    def test_is_done_again_after_everything_was_let_go_of(self) -> None:
        for _ in range(3):
            assert run(NAMES, []) == []
        by_cursor("DEALLOCATE ALL")
        assert run(NAMES, []) == []
        by_cursor("DEALLOCATE ALL")
        with transaction.atomic():
            assert run(NAMES, []) == []

    def test_that_a_changed_table_has_made_stale_is_done_again(self) -> None:
        for _ in range(3):
            run(NAMES, [])
        by_cursor("ALTER TABLE tests_things ALTER name TYPE varchar(9)")
        assert run(NAMES, []) == []

    def test_within_a_transaction_the_next_one_finds_it_made_again(self) -> None:
        """What the transaction has written before is lost: only who began it can repeat it."""
        for _ in range(3):
            run(NAMES, [])
        by_cursor("ALTER TABLE tests_things ALTER name TYPE varchar(9)")
        with pytest.raises(OperationalError) as caught, transaction.atomic():  # noqa: PT012
            run("SELECT 1", [])
            run(NAMES, [])
        assert is_conflict(caught.value)
        with transaction.atomic():
            run("SELECT 1", [])
            assert run(NAMES, []) == []

    def test_that_fails_leaves_nothing_behind(self) -> None:
        run(NAMES, [])
        for _ in range(2):
            with pytest.raises(Error):
                run_together((INSERT, ["a", 1]), ("SELECT nonsense", []), (NAMES, []))
        assert run_together((INSERT, ["a", 1]), (NAMES, []))[1] == [("a",)]

    def test_is_done_once_for_a_text_that_comes_twice(self) -> None:
        run(NAMES, [])
        run_together((INSERT, ["a", 1]), (INSERT, ["b", 2]))
        assert (how_many(), how_many_known()) == (1, 1)

    def test_is_remembered_where_the_statement_then_fails(self) -> None:
        run(INSERT, ["a", 1])
        for _ in range(3):
            with pytest.raises(IntegrityError):
                run(INSERT, ["a", 2])
        assert (how_many(), how_many_known()) == (1, 1)


class TestATransaction:
    def test_of_their_own_that_cannot_commit_raises(self) -> None:
        """What is deferred is checked behind the last statement's answer."""
        by_cursor(
            "ALTER TABLE tests_things ADD CONSTRAINT tests_number UNIQUE (number)"
            " DEFERRABLE INITIALLY DEFERRED"
        )
        run(INSERT, ["a", 1])
        for _ in range(3):
            with pytest.raises(IntegrityError):
                run(INSERT, ["b", 1])
        assert run(NAMES, []) == [("a",)]

    @pytest.mark.parametrize("limit", ["statement_timeout", "lock_timeout"])
    def test_that_takes_too_long_raises_and_the_connection_goes_on(self, limit: str) -> None:
        run(INSERT, ["a", 1])
        with pytest.raises(OperationalError) as caught, transaction.atomic():  # noqa: PT012
            other = connection.copy()
            with other.cursor() as cursor:
                cursor.execute("BEGIN; LOCK TABLE tests_things")
            by_cursor(f"SET LOCAL {limit} = 50")
            try:
                run_together(("SELECT 1", []), (NAMES, []), ("SELECT 2", []))
            finally:
                other.close()
        assert keeps_waiting(caught.value)
        assert run(NAMES, []) == [("a",)]

    def test_whose_session_is_ended_raises_and_the_next_one_goes_on(self) -> None:
        run(INSERT, ["a", 1])
        with pytest.raises(OperationalError) as caught:
            run_together((INSERT, ["b", 2]), ("SELECT pg_terminate_backend(pg_backend_pid())", []))
        assert is_outage(caught.value)
        connection.close()
        assert run(NAMES, []) == [("a",)]

    def test_is_not_put_into_an_open_pipeline_of_psycopg(self) -> None:
        """Nobody could tell whose the answers are."""
        with transaction.atomic():
            run(INSERT, ["a", 1])
            with (
                connection.connection.pipeline(),
                pytest.raises(NotSupportedError, match="close your psycopg pipeline"),
            ):
                run(INSERT, ["b", 2])
        assert run(NAMES, []) == [("a",)]

    def test_of_their_own_is_all_or_nothing(self) -> None:
        with pytest.raises(IntegrityError):
            run_together((INSERT, ["a", 1]), (INSERT, ["a", 2]), (INSERT, ["b", 3]))
        assert by_cursor(NAMES) == []

    def test_of_the_caller_is_rolled_back_with_the_rest(self) -> None:
        with pytest.raises(DataError), transaction.atomic():  # noqa: PT012
            run(INSERT, ["a", 1])
            run("SELECT %s", ["a\0b"])
        assert by_cursor(NAMES) == []

    def test_that_is_spoilt_takes_no_more(self) -> None:
        with transaction.atomic():
            with pytest.raises(IntegrityError):
                run_together((INSERT, ["a", 1]), (INSERT, ["a", 2]))
            with pytest.raises(Error):
                run(NAMES, [])
            transaction.set_rollback(True)
        assert run(NAMES, []) == []

    def test_is_begun_as_the_connection_wants(self) -> None:
        run(NAMES, [])
        connection.connection.read_only = True
        try:
            with pytest.raises(Error, match="read-only"), transaction.atomic():
                run(INSERT, ["a", 1])
        finally:
            connection.connection.read_only = None

    def test_has_its_isolation_level_before_anything_is_parsed(self) -> None:
        run(NAMES, [])
        run(NAMES, [])
        connection.connection.isolation_level = IsolationLevel.SERIALIZABLE
        try:
            with transaction.atomic():
                run("SELECT count(*) FROM tests_things WHERE number > %s", [1])
                assert run("SHOW transaction_isolation", []) == [("serializable",)]
        finally:
            connection.connection.isolation_level = None

    def test_shares_savepoints_with_cursors(self) -> None:
        with transaction.atomic():
            run(INSERT, ["a", 1])
            with pytest.raises(IntegrityError), transaction.atomic():
                run(INSERT, ["a", 2])
            by_cursor("INSERT INTO tests_things (name) VALUES ('b')")
            run(INSERT, ["c", 3])
        assert by_cursor(NAMES) == [("a",), ("b",), ("c",)]


def test_whoever_listens_to_the_cursors_hears_them() -> None:
    heard: list[str] = []

    def listen(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:  # noqa: FBT001
        heard.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(listen):
        assert run_together((INSERT, ["a", 1]), (NAMES, [])) == [[(1,)], [("a",)]]
    assert heard == [f"{INSERT}; {NAMES}"]

    def begin_to_listen(connection: Any, **_: Any) -> None:
        connection.execute_wrappers.append(listen)

    connection.close()
    connection_created.connect(begin_to_listen)
    try:
        run(NAMES, [])
    finally:
        connection_created.disconnect(begin_to_listen)
        connection.execute_wrappers.clear()
    assert heard[1:] == [NAMES]


def test_a_watch_over_the_call_counts_none_of_their_time() -> None:
    now = [0.0]
    watch = Watch(5.0, clock=lambda: now[0])

    def work() -> tuple[int, float, float]:
        now[0] += 1.0
        before = watch.left()
        run_together((INSERT, ["a", 1]), (NAMES, []))
        return how_many_known(), before, watch.left()

    run(NAMES, [])
    assert watch.call(work) == (2, 4.0, 5.0)
    by_cursor("SELECT 1")


def how_many_known() -> int:
    return len(prepared._sessions[connection.connection].names)
