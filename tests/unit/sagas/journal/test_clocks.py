"""One clock for what is compared, whatever the time zone is in which a database keeps moments."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections, transaction
from django.utils import timezone
from pytest_django import Settings

from brokers import Record
from outbox import enqueue
from outbox.models import OutboxMessage
from outbox.queries import oldest_age
from saga_runtime.interventions import By
from sagas.inbox import accepting
from sagas.journal import claims, cleaning, sql
from sagas.journal.cancelling import request_cancel
from sagas.models import Saga, SagaStep
from sagas.operations import interventions, reports
from sagas.worker.run_here import run_saga_sync
from tests.unit.sagas.saga_running import Context, Register, begin, run_to_end
from tests.unit.sagas.scripted_sagas import Part, Script, chain, failing
from tests.unit.waiting import TIMEOUT

pytestmark = pytest.mark.django_db(transaction=True)

ZONES = ("America/Los_Angeles", "Asia/Tokyo", "UTC")
HOUR = timedelta(hours=1)


@pytest.fixture(params=[(zone, aware) for zone in ZONES for aware in (False, True)], ids=str)
def _zone(request: pytest.FixtureRequest, settings: Settings) -> None:
    settings.TIME_ZONE, settings.USE_TZ = request.param


@pytest.fixture
def tour(register: Register, script: Script) -> type[Any]:
    saga = script.saga(
        "tour", *chain(Part("fly"), Part("stay", external=True)), deadline=timedelta(minutes=30)
    )
    register(saga)
    return saga


@pytest.mark.usefixtures("_zone")
class TestInAnyZone:
    def test_a_saga_is_due_at_once_and_in_time(self, tour: type[Any], script: Script) -> None:
        script.acts["stay"] = failing(OSError("away"))
        run_saga_sync(tour, {}, key="K", timeout=TIMEOUT)
        saga = Saga.objects.get()
        assert saga.status == "completed"
        for moment in (saga.created_at, saga.finished_at, saga.next_run_at):
            assert abs(ago(moment)) < HOUR
        assert timedelta() < -ago(saga.deadline) < HOUR
        for each in SagaStep.objects.all():
            assert abs(ago(each.started_at)) < HOUR
            assert each.finished_at is not None
            assert each.finished_at >= each.started_at
        steps = reports.report_saga(saga)["steps"]
        assert all(0 <= each["seconds"] < HOUR.total_seconds() for each in steps)

    def test_a_deadline_that_has_passed_has_passed(self, tour: type[Any]) -> None:
        assert tour
        saga = begin("tour")
        passed = sql.moment_after(-timedelta(seconds=5))
        Saga.objects.filter(id=saga).update(deadline=passed)
        assert run_to_end(saga).failure == "its deadline has passed"

    @pytest.mark.usefixtures("tour")
    def test_a_lease_holds_and_ends(self) -> None:
        saga = begin("tour")
        assert claim("one", lease=HOUR / 2)
        assert not claim("two")
        claims.renew(worker="one", ids=[saga], lease=HOUR / 2)
        assert not claim("two")
        claims.release(worker="one")
        assert claim("two", lease=timedelta())
        assert claim("three")
        assert claims.release_all() == 1
        assert claim("four")

    @pytest.mark.usefixtures("tour")
    def test_a_command_and_its_cancel_are_due_at_once(self, script: Script) -> None:
        script.acts["fly"] = failing(*[OSError("away")] * 9)
        saga = begin("tour")
        Saga.objects.filter(id=saga).update(next_run_at=sql.moment_after(HOUR))
        assert not claim("one")
        request_cancel(saga, who="a test", reason="changed my mind")
        assert run_to_end(saga).failure == "changed my mind"

    @pytest.mark.usefixtures("tour")
    def test_a_parked_saga_goes_on_at_once(self) -> None:
        saga = begin("tour")
        Saga.objects.filter(id=saga).update(
            status="parked", next_run_at=sql.moment_after(HOUR), worker=""
        )
        interventions.retry(saga, by=By("a test", "mended"))
        assert run_to_end(saga).status == "completed"

    @pytest.mark.usefixtures("tour")
    def test_only_what_is_old_is_cleaned(self) -> None:
        run_to_end(begin("tour"))
        call_command("sagas", "clean", "--older-than", "1d")
        assert Saga.objects.count() == 1
        assert not cleaning.clean_sagas(older_than=timezone.now() - HOUR)
        assert cleaning.clean_sagas(older_than=timezone.now() + HOUR) == 1

    def test_a_message_is_as_old_as_it_is(self) -> None:
        with transaction.atomic():
            enqueue(topic="t", key="k", type="x", payload={})
        assert abs(oldest_age()) < HOUR
        assert abs(ago(OutboxMessage.objects.get().created_at)) < HOUR


def test_the_inbox_goes_by_the_same_clock(register: Register, settings: Settings) -> None:
    from sagaz import Saga as SagaClass
    from sagaz import action
    from sagaz.core.triggers import trigger

    class Tour(SagaClass):
        saga_name = "tour"
        deadline = timedelta(minutes=30)

        @trigger(source="tour.book", idempotency_key="trip")
        def on_book(self, event: Context) -> Context:
            return event

        @action("fly")
        def fly(self, ctx: Context) -> None: ...

    register(Tour)
    settings.TIME_ZONE, settings.USE_TZ = "America/Los_Angeles", False
    headers = {"specversion": "1.0", "id": "1", "source": "/tests", "type": "tour.book"}
    texts = tuple((f"ce_{name}", text.encode()) for name, text in headers.items())
    accepting.accept([Record("tours", 0, 0, b"k", b'{"trip": "T"}', texts)], consumer="test")
    assert run_to_end(Saga.objects.get().id).status == "completed"


@pytest.mark.on_sqlite
@pytest.mark.usefixtures("tour")
def test_a_zone_of_the_databases_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """`DATABASES["default"]["TIME_ZONE"]`: moments are kept in it, though Django speaks UTC."""
    monkeypatch.setitem(connections.settings["default"], "TIME_ZONE", "America/Los_Angeles")
    ours = connections["default"]
    for name in ("timezone", "timezone_name"):
        vars(ours).pop(name, None)
    try:
        saga = begin("tour")
        Saga.objects.filter(id=saga).update(next_run_at=sql.now())
        assert run_to_end(saga).status == "completed"
        assert abs(ago(Saga.objects.get().finished_at)) < HOUR
    finally:
        monkeypatch.undo()
        for name in ("timezone", "timezone_name"):
            vars(ours).pop(name, None)


def ago(moment: datetime | None) -> timedelta:
    assert moment is not None
    return datetime.now(UTC) - (moment if moment.tzinfo else moment.astimezone(UTC))


def claim(worker: str, *, lease: timedelta = HOUR) -> list[Any]:
    return claims.claim(worker=worker, limit=9, lease=lease, suspect_from=9)
