"""A local step's transaction on PostgreSQL: the journal's part goes past Django's cursors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from django.db import DataError, Error, connection, transaction
from psycopg import IsolationLevel

from sagas.journal import limits, sql
from sagas.models import Saga
from tests.unit.sagas.saga_running import (
    Context,
    Register,
    attempts_of,
    begin,
    journal_of,
    run_to_end,
)
from tests.unit.sagas.scripted_sagas import Part, Script, chain

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.on_postgresql]


@pytest.fixture(autouse=True)
def _tour(register: Register, script: Script) -> None:
    register(script.saga("tour", *chain(Part("fly's", max_retries=0), Part("eat"))))


def test_values_come_back_as_they_were(script: Script) -> None:
    odd = {"note": 'it\'s \\ "%s" {0}; COMMIT; -- é 😀 \u0000'}
    seen: list[Any] = []
    script.acts["fly's"] = lambda _: odd
    script.acts["eat"] = lambda context: seen.append(context["note"])
    saga = run_to_end(begin("tour"))
    assert saga.status == "completed"
    assert journal_of(saga.id) == {"fly's:F": ("done", 1), "eat:F": ("done", 1)}
    assert seen == [odd["note"]]


def test_a_step_that_loses_its_connection_is_done_again(script: Script) -> None:
    def fly(_: Context) -> None:
        Saga.objects.create(id=uuid4(), name="trace", key="fly", status="completed")
        if len(script.calls) == 1:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid = pg_backend_pid()"
                )

    script.acts["fly's"] = fly
    saga = run_to_end(begin("tour"))
    assert saga.status == "completed"
    assert script.calls == ["fly's", "fly's", "eat"]
    assert Saga.objects.filter(name="trace").count() == 1


@pytest.mark.usefixtures("one_by_one")
def test_one_that_is_ended_behind_its_last_statement_is_done_again(script: Script) -> None:
    """The next thing that the connection is asked for is the journal's part."""

    def fly(_: Context) -> None:
        if len(script.calls) == 1:
            [(pid,)] = sql.run("SELECT pg_backend_pid()", [])
            end_backend(pid)

    script.acts["fly's"] = fly
    saga = run_to_end(begin("tour"))
    assert saga.status == "completed"
    assert script.calls == ["fly's", "fly's", "eat"]


def test_one_that_has_its_transaction_rolled_back_fails(script: Script) -> None:
    script.acts["fly's"] = lambda _: transaction.set_rollback(True)
    saga = run_to_end(begin("tour"))
    assert saga.status == "rolled_back"
    assert "TransactionManagementError" in saga.failure


def test_a_transaction_that_it_begins_has_the_isolation_level_of_the_connection() -> None:
    connection.ensure_connection()
    connection.connection.isolation_level = IsolationLevel.REPEATABLE_READ
    try:
        with transaction.atomic():
            limits.limit_statements(7.0)
            level = sql.run("SHOW transaction_isolation", [])
            limit = sql.run("SHOW statement_timeout", [])
    finally:
        connection.connection.isolation_level = None
    assert (level, limit) == ([("repeatable read",)], [("7s",)])


def test_what_the_commit_refuses_fails_the_step(script: Script) -> None:
    committed: list[str] = []

    def fly(_: Context) -> None:
        transaction.on_commit(lambda: committed.append("fly"))

    script.acts["fly's"] = fly
    with commits_refused("done"):
        saga = run_to_end(begin("tour"))
    assert saga.status == "rolled_back"
    assert "no commit today" in saga.failure
    assert committed == []
    assert [attempt.status for attempt in attempts_of(saga.id, of="fly's:F")] == ["failed"]


def test_why_the_server_ended_the_session_is_kept() -> None:
    def write() -> None:
        with transaction.atomic():
            [(pid,)] = sql.run("SELECT pg_backend_pid()", [])
            end_backend(pid)
            sql.run_together([("SELECT 1", []), ("SELECT 2", [])])

    with pytest.raises(Error) as caught:
        write()
    assert getattr(caught.value.__cause__, "sqlstate", None) == "57P01"


def test_a_text_with_nul_is_refused_and_not_cut_short() -> None:
    with pytest.raises(DataError), transaction.atomic():
        sql.run_together([("SELECT 1", []), ("SELECT %s", ["a\0b"])])


def test_a_transaction_that_it_begins_may_write_where_the_connection_may() -> None:
    connection.ensure_connection()
    connection.connection.read_only = False
    sql.run("SET default_transaction_read_only = on", [])
    try:
        with transaction.atomic():
            limits.limit_statements(7.0)
            said = sql.run("SHOW transaction_read_only", [])
    finally:
        sql.run("SET default_transaction_read_only = off", [])
        connection.connection.read_only = None
    assert said == [("off",)]


def end_backend(pid: int) -> None:
    """From another connection, which waits until it is gone."""
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            assert cursor.fetchone() == (True,)
    finally:
        other.close()


@contextmanager
def commits_refused(status: str) -> Iterator[None]:
    """Those with an attempt of that status."""
    sql.run(
        "CREATE FUNCTION tests_refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RAISE EXCEPTION ''no commit today''; END'",
        [],
    )
    sql.run(
        "CREATE CONSTRAINT TRIGGER tests_refuse AFTER INSERT ON sagas_step"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        f" WHEN (NEW.status = '{status}') EXECUTE FUNCTION tests_refuse()",
        [],
    )
    try:
        yield
    finally:
        sql.run("DROP FUNCTION tests_refuse CASCADE", [])
