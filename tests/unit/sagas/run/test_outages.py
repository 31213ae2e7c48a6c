"""Whose database is away: only an outage of our own spends no retry, whatever the error's class."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError, connection
from django.db.backends.sqlite3.base import DatabaseWrapper as SqliteWrapper
from sagaz import Saga as SagaClass
from sagaz import action
from sagaz.core.triggers import trigger

from brokers import Record
from saga_runtime.database_errors import alias_of, our_outage
from sagas import call_in_thread
from sagas.definition.hooks import Hook, SagaOutcome
from sagas.inbox import accepting
from sagas.models import RefusedCommand, Saga
from sagas.run import decisions
from tests.unit.sagas.saga_running import Context, Register, attempts_of, begin, run_to_end
from tests.unit.sagas.scripted_sagas import Part, Script, chain, failures_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def foreign(tmp_path: Path) -> Callable[[], None]:
    """Asks another database, which is away: its file cannot be opened."""
    given = connection.settings_dict | {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(tmp_path / "no such folder" / "other.sqlite3"),
        "OPTIONS": {},
    }

    def ask() -> None:
        SqliteWrapper(given, alias="other").cursor()

    return ask


def break_ours() -> None:
    """An outage of our own database that is over as soon as it is noticed."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return
    with connection.cursor() as cursor:  # its disk is full, which time heals
        cursor.execute("PRAGMA max_page_count = 1")
        try:
            cursor.execute("UPDATE sagas_saga SET failure = hex(zeroblob(5000000))")
        finally:
            connection.connection.execute("PRAGMA max_page_count = 1000000")


def caught(call: Callable[[], None]) -> OperationalError:
    with pytest.raises(OperationalError) as found:
        call()
    connection.close()
    return found.value


class TestAnErrorOf:
    def test_another_database_says_so(self, foreign: Callable[[], None]) -> None:
        error = caught(foreign)
        assert alias_of(error) == "other"
        assert our_outage(error) is None

    def test_our_own_is_found_behind_what_was_made_of_it(
        self, script: Script, register: Register
    ) -> None:
        register(script.saga("tour", Part("fly")))
        begin("tour")  # a row to write
        error = caught(break_ours)
        assert alias_of(error) == "default"
        wrapped = RuntimeError("the step's own words")
        wrapped.__cause__ = error
        assert our_outage(wrapped) is error
        assert our_outage(ExceptionGroup("both", [ValueError("no"), wrapped])) is error

    def test_a_statement_at_fault_is_none(self) -> None:
        with pytest.raises(Exception, match="no_such_table") as found:
            connection.cursor().execute("SELECT * FROM no_such_table")
        assert our_outage(found.value) is None

    def test_nobody_knows_is_none(self) -> None:
        assert alias_of(OperationalError("away")) is None
        assert our_outage(OperationalError("away")) is None

    def test_that_was_raised_from_itself_ends_the_search(self) -> None:
        first, second = ValueError("first"), ValueError("second")
        first.__cause__, second.__cause__ = second, first
        assert our_outage(first) is None


class TestAnotherDatabaseAway:
    @pytest.mark.parametrize("is_external", [False, True], ids=["local", "external"])
    def test_spends_the_retries_of_a_step(
        self, register: Register, script: Script, foreign: Callable[[], None], *, is_external: bool
    ) -> None:
        register(script.saga("tour", *chain(Part("fly"), Part("stay", external=is_external))))

        async def stay_outside(_: Context) -> None:
            await call_in_thread(foreign)

        script.acts["stay"] = stay_outside if is_external else lambda _: foreign()
        saga = run_to_end(begin("tour"))
        assert saga.status == "rolled_back"
        assert "unable to open database file" in saga.failure
        status = "unknown" if is_external else "failed"
        assert failures_of(saga.id)["stay:F"] == (status, 3, 3)
        assert [a.status for a in attempts_of(saga.id, of="stay:F")] == [status] * 3

    def test_spends_the_retries_of_a_compensation(
        self, register: Register, script: Script, foreign: Callable[[], None]
    ) -> None:
        register(script.saga("tour", *chain(Part("fly"), Part("stay", max_retries=0))))
        script.acts["stay"] = lambda _: 1 / 0
        script.acts["unfly"] = lambda _: foreign()
        saga = run_to_end(begin("tour"))
        assert saga.status == "parked"
        assert failures_of(saga.id)["fly:C"] == ("failed", 3, 3)

    def test_is_a_hook_that_fails(
        self,
        register: Register,
        script: Script,
        foreign: Callable[[], None],
        on_finish: Callable[[str, Hook], None],
    ) -> None:
        register(script.saga("tour", Part("fly")))
        on_finish("tour", lambda _: foreign())
        saga = run_to_end(begin("tour"))
        assert saga.status == "parked"
        assert "its on_finish hook fails: OperationalError" in saga.park_reason

    def test_so_does_the_file_of_a_driver_of_the_steps_own(
        self, register: Register, script: Script, tmp_path: Path
    ) -> None:
        register(script.saga("tour", Part("fly")))
        script.acts["fly"] = lambda _: sqlite3.connect(tmp_path / "no" / "file")
        saga = run_to_end(begin("tour"))
        assert failures_of(saga.id)["fly:F"] == ("failed", 3, 3)


class TestOurOwnAwayForAMoment:
    """It answers again when it is asked, and all the same no retry is spent."""

    @pytest.mark.parametrize("is_wrapped", [False, True], ids=["as it is", "wrapped"])
    @pytest.mark.parametrize("is_external", [False, True], ids=["local", "external"])
    def test_spends_no_retry_of_a_step_that_uses_it(
        self, register: Register, script: Script, *, is_external: bool, is_wrapped: bool
    ) -> None:
        register(script.saga("tour", Part("stay", external=is_external, max_retries=0)))
        left = [1, 2]

        def ask() -> None:
            if not left:
                return
            left.pop()
            try:
                break_ours()
            except OperationalError as error:
                if is_wrapped:
                    raise LookupError("the seat's row") from error
                raise

        async def stay_outside(_: Context) -> None:
            await call_in_thread(ask)

        script.acts["stay"] = stay_outside if is_external else lambda _: ask()
        saga = run_to_end(begin("tour"))
        assert (saga.status, saga.failure) == ("completed", "")
        assert failures_of(saga.id)["stay:F"] == ("done", 3 if is_external else 1, 0)

    def test_spends_no_try_of_a_hook(
        self,
        register: Register,
        script: Script,
        on_finish: Callable[[str, Hook], None],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        register(script.saga("tour", Part("fly")))
        left = [1]

        def hook(_: SagaOutcome) -> None:
            if left:
                left.pop()
                if connection.vendor == "postgresql":
                    break_ours()
                raise OperationalError("away") from locked()

        on_finish("tour", hook)
        assert run_to_end(begin("tour")).status == "completed"
        assert connection.vendor != "postgresql" or "hook failed" not in caplog.text

    @pytest.mark.parametrize("is_external", [False, True], ids=["local", "external"])
    def test_is_not_excused_for_ever(
        self, register: Register, script: Script, *, is_external: bool
    ) -> None:
        """A step that breaks its connection each time looks the same."""
        register(script.saga("tour", Part("stay", external=is_external, max_retries=1)))

        async def stay_outside(_: Context) -> None:
            await call_in_thread(break_ours)

        script.acts["stay"] = stay_outside if is_external else lambda _: break_ours()
        saga = run_to_end(begin("tour"))
        assert saga.status == "rolled_back"
        assert script.calls.count("stay") == decisions.MOST_EXCUSED + 2
        assert failures_of(saga.id)["stay:F"][2] == 2


def locked() -> Any:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorname = "SQLITE_BUSY"
    return error


class TestATrigger:
    """What asks a database while it reads a message."""

    @pytest.fixture
    def asks(self, register: Register) -> list[Callable[[], None]]:
        """Called one after the other, each for one message."""
        waiting: list[Callable[[], None]] = []

        class Tour(SagaClass):
            saga_name = "tour"

            @trigger(source="tour.book", idempotency_key="trip")
            def on_book(self, event: Context) -> Context:
                waiting.pop(0)()
                return event

            @action("fly")
            def fly(self, ctx: Context) -> None: ...

        register(Tour)
        return waiting

    def test_refuses_where_another_database_is_away_and_no_partition_stands_still(
        self, asks: list[Callable[[], None]], foreign: Callable[[], None]
    ) -> None:
        asks += [foreign, lambda: None]
        assert accepting.accept([command("1"), command("2")], consumer="test") == 1
        (kept,) = RefusedCommand.objects.all()
        assert "unable to open database file" in kept.reason

    def test_refuses_where_its_statement_is_at_fault(self, asks: list[Callable[[], None]]) -> None:
        def ask() -> None:
            connection.cursor().execute("SELECT * FROM no_such_table")

        asks += [ask, lambda: None]
        assert accepting.accept([command("1"), command("2")], consumer="test") == 1
        assert "no_such_table" in RefusedCommand.objects.get().reason

    @pytest.mark.on_postgresql
    def test_refuses_nothing_where_our_own_gave_its_statement_up(
        self, asks: list[Callable[[], None]]
    ) -> None:
        """A database that is overloaded gives up any statement; a refused command is lost."""

        def ask() -> None:
            with connection.cursor() as cursor:
                cursor.execute("SET statement_timeout = 50")
                try:
                    cursor.execute("SELECT pg_sleep(60)")
                finally:
                    cursor.execute("RESET statement_timeout")

        asks += [ask, lambda: None]
        with pytest.raises(OperationalError, match="statement timeout"):
            accepting.accept([command("1")], consumer="test")
        assert accepting.accept([command("1")], consumer="test") == 1
        assert not RefusedCommand.objects.exists()

    @pytest.mark.parametrize("is_open", [True, False])
    def test_refuses_where_nobody_knows_whose_outage_it_was_and_ours_answers(
        self, asks: list[Callable[[], None]], *, is_open: bool
    ) -> None:
        """A trigger is called before the consumer has asked the database anything."""

        def ask() -> None:
            raise OperationalError("the price list does not answer")

        asks += [ask, lambda: None]
        connection.ensure_connection()
        if not is_open:
            connection.close()
        assert accepting.accept([command("1"), command("2")], consumer="test") == 1
        assert "the price list does not answer" in RefusedCommand.objects.get().reason

    def test_refuses_nothing_while_our_own_is_away(self, asks: list[Callable[[], None]]) -> None:
        Saga.objects.create(id=UUID(int=1), name="x", key="x", definition_hash="", input="{}")
        asks += [break_ours, lambda: None]
        with pytest.raises(OperationalError):
            accepting.accept([command("1")], consumer="test")
        connection.close()
        assert accepting.accept([command("1")], consumer="test") == 1
        assert not RefusedCommand.objects.exists()


def command(trip: str) -> Record:
    headers = {"specversion": "1.0", "id": trip, "source": "/tests", "type": "tour.book"}
    return Record(
        "tours", 0, int(trip), b"k", f'{{"trip": "{trip}"}}'.encode(),
        tuple((f"ce_{name}", text.encode()) for name, text in headers.items()),
    )  # fmt: skip
