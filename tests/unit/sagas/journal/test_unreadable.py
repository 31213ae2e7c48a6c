"""What cannot be read parks its own saga, and no other; nothing that is read ends the worker."""

import asyncio
import json
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction

from outbox import enqueue
from outbox.errors import PayloadError
from saga_runtime.interventions import By
from saga_runtime.nesting import DEEPEST, is_too_deep
from sagas.errors import SagaParked, UnreadableValue, UnstorableValue
from sagas.journal import codec
from sagas.journal.final_context import final_context
from sagas.models import ACTIVE, Saga, SagaStep
from sagas.operations import interventions
from sagas.operations.diagrams import diagram_of
from sagas.operations.sagaz_storage import DjangoSagaStorage
from sagas.worker.run_here import run_saga_sync
from tests.unit.sagas.saga_running import Register, begin, run_to_end, working
from tests.unit.sagas.scripted_sagas import Part, Script, chain
from tests.unit.waiting import TIMEOUT, until

pytestmark = pytest.mark.django_db(transaction=True)


def nested(levels: int, *, tag: str = "[") -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if tag == "[" else {"a": value}
    return value


@pytest.fixture
def tour(register: Register, script: Script) -> type[Any]:
    saga = script.saga("tour", *chain(Part("fly"), Part("stay", external=True), Part("eat")))
    register(saga)
    return saga


class TestNesting:
    @pytest.mark.parametrize("tag", ["[", "{"])
    def test_has_one_limit_whoever_asks(self, tag: str) -> None:
        fine, deep = nested(DEEPEST, tag=tag), nested(DEEPEST + 1, tag=tag)
        assert not is_too_deep(fine)
        assert is_too_deep(deep)
        assert not is_too_deep(fine, text=json.dumps(fine))
        assert is_too_deep(deep, text=json.dumps(deep).encode())
        assert not is_too_deep(["[" * 500], text=json.dumps(["[" * 500]))

    def test_of_what_holds_itself_or_is_shared_is_found_out_at_once(self) -> None:
        loop: list[Any] = []
        loop.append(loop)
        assert is_too_deep(loop)
        shared: Any = 1
        for _ in range(DEEPEST):
            shared = [shared, shared]  # 2^64 ways down
        assert not is_too_deep(shared)

    def test_is_the_journals(self) -> None:
        deepest = nested(DEEPEST - 1, tag="{")
        assert codec.decode(codec.encode((deepest,))) == (deepest,)
        with pytest.raises(UnstorableValue, match="nested too deeply"):
            codec.encode(nested(DEEPEST + 1, tag="{"))

    def test_is_the_outboxs(self) -> None:
        deep = nested(DEEPEST + 1)
        with transaction.atomic(), pytest.raises(PayloadError, match="nested too deeply"):
            enqueue(topic="t", key="k", type="x", payload=deep)

    @pytest.mark.usefixtures("tour")
    def test_is_that_of_a_result(self, script: Script) -> None:
        script.acts["fly"] = lambda _: {"seat": nested(DEEPEST)}
        saga = run_to_end(begin("tour"))
        assert saga.status == "rolled_back"
        assert "nested too deeply" in saga.failure

    def test_is_that_of_a_saga_in_a_shell(self, tour: type[Any]) -> None:
        with pytest.raises(UnstorableValue, match="nested too deeply"):
            run_saga_sync(tour, {"a": nested(DEEPEST)})


DAMAGED = {
    "cut off": '{"a": ',
    "not JSON": "\\x00",
    "nested 492 deep": json.dumps(nested(492, tag="{")),
    "nested without end": "[" * 100_000,
    "a newer type": '{"at": {"$instant": "now"}}',
    "no number": '{"a": {"$decimal": "nine"}}',
    "no moment": '{"a": {"$datetime": "99999-01-01T00:00:00"}}',
    "beyond the calendar": '{"a": {"$microseconds": "999999999999999999999999"}}',
    "a type of another": '{"a": {"$uuid": 5}}',
    "NaN": '{"a": NaN}',
    "5000 digits": '{"a": %s}' % ("9" * 5000),
    "a list": "[1]",
    "nothing": "",
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
class TestDamaged:
    @pytest.fixture(autouse=True)
    def _tour(self, tour: type[Any]) -> None: ...

    def test_input_parks_its_own_saga_and_no_other(self, text: str, script: Script) -> None:
        bad, good = begin("tour", key="bad"), begin("tour", key="good")
        Saga.objects.filter(id=bad).update(input=text)
        parked = run_all(bad)
        assert Saga.objects.get(id=good).status == "completed"
        assert "its input cannot be read" in parked.park_reason
        assert f"manage.py sagas retry {bad}" in parked.park_reason
        assert script.calls == ["fly", "stay", "eat"]

        Saga.objects.filter(id=bad).update(input=codec.encode({}))
        interventions.retry(bad, by=By("a test", "mended"))
        assert run_to_end(bad).status == "completed"

    def test_result_of_a_step_parks_and_nothing_is_done_again(
        self, text: str, script: Script
    ) -> None:
        bad, good = begin("tour", key="bad"), begin("tour", key="good")
        step(bad, result=text or "{")
        parked = run_all(bad)
        assert Saga.objects.get(id=good).status == "completed"
        assert "the result of its step fly (F) cannot be read" in parked.park_reason
        assert script.calls == ["fly", "stay", "eat"]

    def test_is_shown_all_the_same(self, text: str) -> None:
        saga = begin("tour")
        step(saga, result=text or "{")
        Saga.objects.filter(id=saga).update(status="parked", input=text)
        storage = DjangoSagaStorage()
        state = asyncio.run(storage.load_saga_state(str(saga)))
        assert state is not None
        assert state["steps"][0]["result"] == ([1] if text == "[1]" else text or "{")
        assert len(asyncio.run(storage.list_sagas())) == 1
        assert "fly" in diagram_of(saga, name="tour")
        assert final_context(Saga.objects.get(id=saga), is_lenient=True) == {"saga_id": str(saga)}


def step(saga: UUID, **values: Any) -> None:
    """Its first step, as a worker before has left it."""
    Saga.objects.filter(id=saga).update(epoch=1)
    given = {"saga_id": saga, "step": "fly", "kind": "F", "status": "done", "key": "k"}
    SagaStep.objects.create(**given | values)


def run_all(saga: UUID) -> Saga:
    """Work until all sagas have ended or parked; this one has parked."""
    with working():
        until(lambda: not Saga.objects.filter(status__in=ACTIVE).exists())
    found = Saga.objects.get(id=saga)
    assert found.status == "parked"
    return found


@pytest.mark.usefixtures("tour")
@pytest.mark.parametrize("column", ["status", "kind"])
def test_a_step_of_a_newer_version_parks(column: str, script: Script) -> None:
    saga = begin("tour")
    step(saga, **{column: "X"})
    assert "not known here" in run_all(saga).park_reason
    assert not script.calls
    assert asyncio.run(DjangoSagaStorage().load_saga_state(str(saga)))
    assert "fly" in diagram_of(saga, name="tour")


@pytest.mark.usefixtures("tour")
def test_a_saga_of_a_newer_versions_status_is_listed() -> None:
    Saga.objects.filter(id=begin("tour")).update(status="resting")
    (state,) = asyncio.run(DjangoSagaStorage().list_sagas())
    assert state["status"] == "executing"
    assert "resting" in diagram_of(UUID(state["saga_id"]), name="tour")


@pytest.mark.usefixtures("tour")
def test_a_deadline_that_python_cannot_keep_ends_no_worker() -> None:
    bad, good = begin("tour", key="bad"), begin("tour", key="good")
    is_server = connection.vendor == "postgresql"
    with connection.cursor() as cursor:
        given = "infinity" if is_server else "2026-99-01 00:00:00"
        cursor.execute("UPDATE sagas_saga SET deadline = %s WHERE key = 'bad'", [given])
    with working():
        until(lambda: not Saga.objects.filter(status__in=ACTIVE).exists())
    found = dict(Saga.objects.values_list("id", "status"))
    # To PostgreSQL it is a moment: one that never comes.
    assert found == {good: "completed", bad: "completed" if is_server else "parked"}


@pytest.mark.usefixtures("tour")
def test_a_saga_whose_class_cannot_be_made_parks_and_ends_no_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bad = begin("tour", key="bad")

    def new(_: object) -> None:
        raise OSError("no configuration")

    with monkeypatch.context() as patch:
        patch.setattr("sagas.definition.instances.InstanceFactory.new", new)
        assert "its saga cannot be made: OSError: no configuration" in run_all(bad).park_reason
    interventions.retry(bad, by=By("a test", "it is there"))
    assert run_to_end(bad).status == "completed"


def test_a_caller_is_told_that_it_is_parked(tour: type[Any]) -> None:
    saga = begin("tour", key="bad")
    Saga.objects.filter(id=saga).update(input="{")
    with pytest.raises(SagaParked, match="its input cannot be read"):
        run_saga_sync(tour, {}, key="bad", timeout=TIMEOUT)


def test_a_completed_saga_hands_out_no_context_with_a_hole(tour: type[Any]) -> None:
    saga = begin("tour", key="bad")
    Saga.objects.filter(id=saga).update(input="{", status="completed")
    with pytest.raises(UnreadableValue, match="tour bad"):
        run_saga_sync(tour, {}, key="bad", timeout=TIMEOUT)


@pytest.mark.on_sqlite
@pytest.mark.usefixtures("tour")
def test_a_row_without_an_id_that_can_be_read_ends_no_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begin("tour", key="bad")
    good = begin("tour", key="good")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE sagas_saga SET id = 'nobody' WHERE key = 'bad'")
    assert run_to_end(good).status == "completed"
    assert "'nobody', which is no UUID" in caplog.text
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM sagas_saga WHERE id = 'nobody'")
