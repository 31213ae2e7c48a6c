"""Hooks whose own statements fail as in an outage while our database answers, and saga rows that
somebody holds: neither lasts for ever, and neither is taken for what it is not."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from django.db import OperationalError, connection, connections, transaction

from saga_runtime.backoff import Backoff
from sagas.definition.hooks import Hook, SagaOutcome
from sagas.journal import writing
from sagas.models import ACTIVE, Saga, SagaStatus, SagaStep
from tests.unit.sagas.saga_running import (
    HOUR,
    HOURS,
    QUICK,
    Register,
    begin,
    is_ended,
    journal_of,
    run_to_end,
    working,
)
from tests.unit.sagas.scripted_sagas import Part, Script, failures_of
from tests.unit.waiting import TIMEOUT, errors, in_thread, until

pytestmark = pytest.mark.django_db(transaction=True)
SetHook = Callable[[str, Hook], None]


IMPATIENT = replace(QUICK, hook_excuse=0.0, retry=Backoff(first=0.001, longest=0.01))


@pytest.fixture
def script(register: Register) -> Script:
    """`tour` completes; `crash` parks."""
    found = Script()
    register(
        found.saga("tour", Part("go")),
        found.saga("crash", Part("burn", pivot=True, max_retries=0)),
    )

    def burn(_: object) -> None:
        raise RuntimeError("burnt")

    found.acts["burn"] = burn
    return found


def by_a_foreign_server() -> None:
    raise OperationalError("the price list does not answer")


def refuse(state: str) -> Callable[[], None]:
    """Let our own server refuse a statement with this SQLSTATE."""

    def ask() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                f"DO $$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '{state}'; END $$"
            )

    return ask


def end_own_session() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")


on_postgresql = pytest.mark.on_postgresql
ASKS = [
    pytest.param(by_a_foreign_server, id="foreign"),
    *(
        pytest.param(refuse(state), id=state, marks=on_postgresql)
        for state in ("08001", "57014", "55P03", "40001", "57P03")
    ),
    pytest.param(end_own_session, id="it ends its session", marks=on_postgresql),
]


def close() -> None:
    connection.close()
    raise ValueError("it has closed our connection")


def close_quietly() -> None:
    connection.close()  # of the thread that calls it


def write_what_the_commit_refuses() -> None:
    """Its foreign key is looked at last."""
    SagaStep.objects.create(saga_id=uuid4(), step="x", kind="F", key="x")


SPOILS = {
    "closes and raises": close,
    "closes": close_quietly,
    "rolls back": lambda: transaction.set_rollback(True),
    "refused by the commit": write_what_the_commit_refuses,
}


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize("ask", ASKS)
class TestAHookThatAsksInVain:
    def test_at_the_end_parks_the_saga(self, ask: Callable[[], None], on_finish: SetHook) -> None:
        on_finish("tour", lambda _: ask())
        saga = run_to_end(begin("tour"), timing=IMPATIENT)
        assert saga.status == SagaStatus.PARKED
        assert saga.park_reason.startswith("its on_finish hook fails: OperationalError: ")
        assert journal_of(saga.id) == {"go:F": ("done", 1)}

    def test_at_the_parking_parks_it_without_its_hook(
        self, ask: Callable[[], None], on_park: SetHook, caplog: pytest.LogCaptureFixture
    ) -> None:
        on_park("crash", lambda _: ask())
        saga = run_to_end(begin("crash"), timing=IMPATIENT)
        assert saga.status == SagaStatus.PARKED
        assert "burnt" in saga.park_reason
        assert any("on_park hook" in line for line in errors(caplog))

    def test_some_times_only_ends_it(self, ask: Callable[[], None], on_finish: SetHook) -> None:
        called: list[SagaOutcome] = []

        def hook(outcome: SagaOutcome) -> None:
            called.append(outcome)
            if len(called) < 4:
                ask()

        on_finish("tour", hook)
        assert run_to_end(begin("tour"), timing=IMPATIENT).status == SagaStatus.COMPLETED
        assert len(called) == 4


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
class TestAHookThatSpoilsItsTransaction:
    def test_at_the_end_parks_the_saga(self, spoil: Callable[[], None], on_finish: SetHook) -> None:
        on_finish("tour", lambda _: spoil())
        saga = run_to_end(begin("tour"), timing=IMPATIENT)
        assert saga.status == SagaStatus.PARKED
        assert saga.park_reason.startswith("its on_finish hook ")

    def test_at_the_parking_parks_it_without_its_hook(
        self, spoil: Callable[[], None], on_park: SetHook
    ) -> None:
        on_park("crash", lambda _: spoil())
        saga = run_to_end(begin("crash"), timing=IMPATIENT)
        assert saga.status == SagaStatus.PARKED
        assert "burnt" in saga.park_reason
        assert not SagaStep.objects.filter(step="x").exists()


@pytest.mark.on_postgresql
@pytest.mark.usefixtures("one_by_one")
def test_a_row_that_somebody_holds_is_waited_for_at_the_end(
    script: Script, on_finish: SetHook, caplog: pytest.LogCaptureFixture
) -> None:
    """Longer than a lock is waited for, which is no outage."""
    on_finish("tour", lambda _: None)
    saga = begin("tour")
    with ExitStack() as stack:
        holding: list[Any] = []
        script.acts["go"] = lambda _: transaction.on_commit(
            lambda: holding.append(stack.enter_context(held(saga)))
        )
        with working():
            until(lambda: "the database gives up what the journal asks" in caplog.text)
            holding[0].set()
            until(lambda: is_ended(saga))
    assert Saga.objects.get(id=saga).status == SagaStatus.COMPLETED
    assert "does not answer" not in caplog.text


@pytest.mark.on_postgresql
@pytest.mark.usefixtures("one_by_one")
def test_what_a_local_step_leaves_to_the_commit_is_its_own(register: Register) -> None:
    """Such as a deferred constraint whose trigger waits in vain for a lock."""
    script = Script()
    register(script.saga("slow", Part("go", max_retries=1)))

    def leave_to_the_commit(_: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(DEFERRED_LOCK)

    script.acts["go"] = leave_to_the_commit
    saga = run_to_end(begin("slow"))
    assert saga.status == SagaStatus.ROLLED_BACK
    assert saga.failure == "timed out"
    assert script.calls == ["go", "go"]


DEFERRED_LOCK = """
    CREATE TEMPORARY TABLE slow (id int) ON COMMIT DROP;
    CREATE FUNCTION pg_temp.lock() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN RAISE EXCEPTION 'no lock' USING ERRCODE = '55P03'; END $$;
    CREATE CONSTRAINT TRIGGER locking AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION pg_temp.lock();
    INSERT INTO slow VALUES (1);
"""


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize("version", [1, 99], ids=["by its run", "by its worker"])
def test_a_parking_that_waits_does_not_hold_up_the_workers_end(
    version: int, on_park: SetHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    def hook(_: SagaOutcome) -> None:
        asked.set()
        raise OperationalError("not now") from psycopg.errors.LockNotAvailable()

    on_park("crash", hook)
    saga = begin("crash")
    Saga.objects.filter(id=saga).update(version=version)  # nobody has the version 99
    timing = replace(QUICK, hook_excuse=HOUR, retry=HOURS)
    with working(timing=timing, grace=TIMEOUT * 4):
        assert asked.wait(TIMEOUT)
    found = Saga.objects.get(id=saga)
    assert (found.status in ACTIVE, found.worker) == (True, "")


@contextmanager
def held(saga: UUID) -> Iterator[threading.Event]:
    """Hold the saga's row in a transaction of somebody's, until the event is set."""
    has, let_go = threading.Event(), threading.Event()

    def hold(stop: threading.Event) -> None:
        with transaction.atomic():
            if connection.vendor == "postgresql":  # it may hold the row for as long as the test
                with connection.cursor() as cursor:
                    cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            Saga.objects.select_for_update().get(id=saga)
            has.set()
            until(lambda: let_go.is_set() or stop.is_set(), timeout=TIMEOUT * 2)
        connections.close_all()

    with in_thread(hold):
        assert has.wait(TIMEOUT)
        yield let_go


@pytest.mark.on_postgresql
def test_a_row_that_somebody_holds_is_nothing_against_a_local_step(
    register: Register, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script()
    register(script.saga("quick", Part("go", timeout=0.1, max_retries=0)))
    saga = begin("quick")
    holding: list[Any] = []

    def hold(_: object) -> None:
        if not holding:
            holding.append(stack.enter_context(held(saga)))

    with ExitStack() as stack:
        script.acts["go"] = hold
        with working():
            until(lambda: "the database gives up what the journal asks" in caplog.text)
            until(lambda: script.calls.count("go") >= 3)
            assert Saga.objects.get(id=saga).status in ACTIVE
            holding[0].set()
            until(lambda: is_ended(saga))
    assert Saga.objects.get(id=saga).status == SagaStatus.COMPLETED
    assert failures_of(saga)["go:F"] == ("done", 1, 0)


def test_the_start_of_an_external_step_that_is_given_up_spends_no_retry(
    register: Register, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script()
    register(script.saga("call", Part("go", external=True, max_retries=0)))
    given_up = [0]

    def write(group: Any) -> Any:
        if given_up[0] < 3 and any(entry.step for entry in group):
            given_up[0] += 1
            reason = psycopg.errors.QueryCanceled("canceling statement due to statement timeout")
            raise OperationalError(str(reason)) from reason
        return writing.write(group)

    saga = run_to_end(begin("call"), write=write)
    assert saga.status == SagaStatus.COMPLETED
    assert failures_of(saga.id)["go:F"] == ("done", 1, 0)
    assert "the database gives up what the journal asks" in caplog.text
