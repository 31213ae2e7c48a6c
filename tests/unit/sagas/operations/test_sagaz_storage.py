"""The journal by way of sagaz's own storage interface."""

import asyncio
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest
from django.db import OperationalError
from django.utils import timezone
from sagaz import Saga as SagaClass
from sagaz import action, compensate
from sagaz.core.storage.base import SagaStorage
from sagaz.core.triggers import trigger
from sagaz.core.types import SagaStatus as SagazStatus
from sagaz.core.types import SagaStepStatus as SagazStepStatus

from brokers import Record
from sagas import DjangoSagaStorage, JournalIsReadOnly, StepRejected
from sagas.inbox import accepting
from sagas.journal import claims
from sagas.journal.records import Claimed
from sagas.models import InboxMessage, Intervention, Saga, SagaAttempt, SagaStatus, SagaStep
from tests.unit.sagas import journal_entries as entries
from tests.unit.sagas.saga_running import CORRELATION, Context, Register, begin, run_to_end

pytestmark = pytest.mark.django_db(transaction=True)

R = TypeVar("R")
LONG_AGO = timezone.now() - timedelta(days=30)


class House(SagaClass):
    """A step fails where the context names it."""

    saga_name = "house"

    @trigger(source="house.build", idempotency_key="house")
    def on_build(self, event: Context) -> Context:
        return event

    @action("dig", max_retries=0)
    def dig(self, _: Context) -> Context:
        return {"depth": 2}

    @compensate("dig", max_retries=0)
    def fill(self, ctx: Context) -> None:
        if ctx.get("fails") == "fill":
            raise ConnectionError("the digger is gone")

    @action("wall", depends_on=["dig"], max_retries=0)
    def wall(self, ctx: Context) -> None:
        if ctx.get("fails") in ("wall", "fill"):
            raise StepRejected("no bricks")

    @action("roof", depends_on=["wall"], max_retries=0, pivot=True)
    async def roof(self, ctx: Context) -> None:
        if ctx.get("fails") == "roof":
            raise ConnectionError("no crane")


@pytest.fixture(autouse=True)
def _houses(register: Register) -> None:
    register(House)


def done(call: Coroutine[Any, Any, R]) -> R:
    return asyncio.run(call)


def load(saga: UUID) -> dict[str, Any]:
    state = done(DjangoSagaStorage().load_saga_state(str(saga)))
    assert state is not None
    return state


def step_statuses(saga: UUID) -> dict[str, str]:
    return {step["name"]: step["status"] for step in load(saga)["steps"]}


def claimed(saga: UUID) -> Claimed:
    (mine,) = claims.claim(worker="dead", limit=1, lease=timedelta(0), only=saga)
    return mine


class TestLoading:
    def test_one_that_completed(self) -> None:
        saga = run_to_end(begin("house", key="H-1", colour="red"))
        state = load(saga.id)
        assert saga.finished_at is not None
        assert (state["saga_id"], state["saga_name"]) == (str(saga.id), "house")
        assert (state["status"], state["error"]) == ("completed", None)
        assert state["context"] == {"colour": "red", "saga_id": str(saga.id), "depth": 2}
        assert state["created_at"] == saga.created_at.isoformat()
        assert state["updated_at"] == saga.finished_at.isoformat()
        assert state["metadata"]["key"] == "H-1"
        assert state["metadata"]["correlation_id"] == CORRELATION
        assert [step["name"] for step in state["steps"]] == ["dig", "wall", "roof"]
        dig = state["steps"][0]
        at = datetime.fromisoformat(dig.pop("executed_at"))
        assert saga.created_at < at < saga.finished_at
        assert dig == {
            "name": "dig",
            "status": "completed",
            "result": {"depth": 2},
            "error": None,
            "compensated": False,
            "compensated_at": None,
            "retry_count": 0,
        }

    def test_one_that_was_rolled_back(self) -> None:
        state = load(run_to_end(begin("house", fails="wall")).id)
        assert (state["status"], state["error"]) == ("rolled_back", "no bricks")
        dig, wall, roof = state["steps"]
        assert (dig["status"], dig["compensated"]) == ("compensated", True)
        assert dig["executed_at"] < dig["compensated_at"]
        assert (wall["status"], wall["error"], wall["compensated"]) == (
            "failed",
            "no bricks",
            False,
        )
        assert (roof["status"], roof["executed_at"]) == ("pending", None)

    def test_one_that_is_parked_on_the_way_back(self) -> None:
        state = load(run_to_end(begin("house", fails="fill")).id)
        assert state["status"] == "failed"
        assert "undoing dig keeps failing" in state["error"]
        assert state["steps"][0]["status"] == "compensating"
        assert "the digger is gone" in state["steps"][0]["error"]

    def test_one_that_is_parked_on_the_way_forward(self) -> None:
        saga = run_to_end(begin("house", fails="roof")).id
        assert load(saga)["status"] == "forward_recovery"
        assert step_statuses(saga) == {"dig": "completed", "wall": "completed", "roof": "failed"}

    def test_one_whose_step_runs_or_is_to_be_tried_again(self) -> None:
        mine = claimed(begin("house"))
        entries.done(mine, "dig", "F", attempt=1, result={})
        entries.failed(mine, "wall", "F", attempt=1, error="no bricks yet")
        entries.started(mine, "roof", "F", attempt=3)
        assert step_statuses(mine.id) == {
            "dig": "completed",
            "wall": "executing",
            "roof": "executing",
        }
        assert [step["retry_count"] for step in load(mine.id)["steps"]] == [0, 0, 2]

    def test_one_that_failed_in_doubt_and_was_undone_too(self) -> None:
        mine = claimed(begin("house"))
        entries.failed(mine, "dig", "F", attempt=1, error="?", unknown=True, decides=True)
        entries.done(mine, "dig", "C", attempt=1, result={})
        (dig, *_) = load(mine.id)["steps"]
        assert (dig["status"], dig["compensated"], dig["error"]) == ("failed", True, "?")

    def test_a_compensation_that_was_left_out(self) -> None:
        mine = claimed(begin("house"))
        entries.done(mine, "dig", "F", attempt=1, result={})
        entries.failed(mine, "dig", "C", attempt=1, error="?")
        SagaStep.objects.filter(kind="C").update(status="skipped")
        assert step_statuses(mine.id)["dig"] == "completed"

    def test_of_a_class_that_is_not_registered_what_the_journal_has(self) -> None:
        saga = run_to_end(begin("house", fails="wall")).id
        Saga.objects.filter(id=saga).update(version=7)
        assert step_statuses(saga) == {"dig": "compensated", "wall": "failed"}

    @pytest.mark.parametrize("saga", ["00000000-0000-0000-0000-000000000000", "no id", ""])
    def test_one_that_there_is_not(self, saga: str) -> None:
        assert done(DjangoSagaStorage().load_saga_state(saga)) is None


class TestSagazsOwnDiagram:
    def drawn(self, saga: UUID) -> str:
        return done(House().to_mermaid_with_execution(str(saga), DjangoSagaStorage()))

    def test_of_one_that_completed(self) -> None:
        saga = run_to_end(begin("house")).id
        trail = {"completed_steps": ["dig", "wall", "roof"]}
        assert self.drawn(saga) == House().to_mermaid(highlight_trail=trail)

    def test_of_one_that_was_rolled_back(self) -> None:
        saga = run_to_end(begin("house", fails="wall")).id
        trail = {
            "completed_steps": ["dig"],
            "failed_step": "wall",
            "compensated_steps": ["dig"],
        }
        drawn = self.drawn(saga)
        assert drawn == House().to_mermaid(highlight_trail=trail)
        assert drawn != House().to_mermaid()


CALLED = [
    ("pending", "", SagazStatus.PENDING),
    ("running", "", SagazStatus.EXECUTING),
    ("waiting", "", SagazStatus.EXECUTING),
    ("waiting", "no bricks", SagazStatus.COMPENSATING),
    ("compensating", "no bricks", SagazStatus.COMPENSATING),
    ("cancelling", "no more", SagazStatus.COMPENSATING),
    ("completed", "", SagazStatus.COMPLETED),
    ("rolled_back", "no bricks", SagazStatus.ROLLED_BACK),
    ("parked", "", SagazStatus.FORWARD_RECOVERY),
    ("parked", "no bricks", SagazStatus.FAILED),
]


class TestListing:
    @pytest.fixture
    def of_each(self) -> dict[str, SagazStatus]:
        """A saga in each status, and what sagaz calls it."""
        called: dict[str, SagazStatus] = {}
        for number, (status, failure, theirs) in enumerate(CALLED):
            key = begin("house", key=f"H-{number}")
            Saga.objects.filter(id=key).update(status=status, failure=failure)
            called[str(key)] = theirs
        assert {status for status, _, _ in CALLED} == set(SagaStatus.values)
        return called

    def test_says_what_sagaz_calls_each(self, of_each: dict[str, SagazStatus]) -> None:
        rows = done(DjangoSagaStorage().list_sagas())
        assert {row["saga_id"]: SagazStatus(row["status"]) for row in rows} == of_each

    @pytest.mark.parametrize("status", SagazStatus)
    def test_by_status(self, of_each: dict[str, SagazStatus], status: SagazStatus) -> None:
        rows = done(DjangoSagaStorage().list_sagas(status=status))
        wanted = {key for key, theirs in of_each.items() if theirs is status}
        assert {row["saga_id"] for row in rows} == wanted

    def test_counts_agree(self, of_each: dict[str, SagazStatus]) -> None:
        statistics = done(DjangoSagaStorage().get_saga_statistics())
        values = [status.value for status in of_each.values()]
        assert statistics == {
            "total_sagas": len(values),
            "by_status": {value: values.count(value) for value in set(values)},
        }

    def test_page_by_page_the_newest_first(self) -> None:
        keys = [str(begin("house", key=f"H-{number}")) for number in range(5)]
        for number, key in enumerate(keys):
            Saga.objects.filter(id=key).update(created_at=LONG_AGO + timedelta(days=number))
        page = done(DjangoSagaStorage().list_sagas(limit=2, offset=1))
        assert [row["saga_id"] for row in page] == [keys[3], keys[2]]

    def test_by_a_part_of_the_name(self) -> None:
        begin("house")
        storage_ = DjangoSagaStorage()
        assert len(done(storage_.list_sagas(saga_name="HOU"))) == 1
        assert done(storage_.list_sagas(saga_name="order")) == []

    def test_how_far_they_have_come(self) -> None:
        run_to_end(begin("house", fails="roof"))
        (row,) = done(DjangoSagaStorage().list_sagas())
        assert (row["saga_name"], row["step_count"], row["completed_steps"]) == ("house", 3, 2)


class TestHealth:
    def test_of_a_database_that_answers(self) -> None:
        health = done(DjangoSagaStorage().health_check())
        assert (health["status"], health["storage_type"]) == ("healthy", "django")

    def test_of_one_that_is_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def exists() -> bool:
            raise OperationalError("the server\nis away")

        monkeypatch.setattr(Saga.objects, "exists", exists)
        health = done(DjangoSagaStorage().health_check())
        assert (health["status"], health["error"]) == ("unhealthy", "the server is away")


class TestWriting:
    def test_is_refused(self) -> None:
        saga = run_to_end(begin("house")).id
        before = load(saga)
        storage_: SagaStorage = DjangoSagaStorage()
        for write in (
            storage_.save_saga_state(str(saga), "house", SagazStatus.FAILED, [], {}),
            storage_.update_step_state(str(saga), "dig", SagazStepStatus.FAILED, error="?"),
            storage_.delete_saga_state(str(saga)),
        ):
            with pytest.raises(JournalIsReadOnly, match=f"{saga}.*written by the executor"):
                done(write)
        assert load(saga) == before


class TestCleaningUp:
    def ended(self, key: str, *, status: str, at: datetime) -> UUID:
        saga = begin("house", key=key)
        Saga.objects.filter(id=saga).update(status=status, created_at=at, finished_at=at)
        return saga

    def clean(self, **options: Any) -> int:
        day_ago = timezone.now() - timedelta(days=1)
        return done(DjangoSagaStorage().cleanup_completed_sagas(day_ago, **options))

    def test_deletes_what_ended_before(self) -> None:
        kept = {self.ended("H-new", status="completed", at=timezone.now())}
        for status in ("parked", "running", "pending"):
            kept.add(self.ended(f"H-{status}", status=status, at=LONG_AGO))
        for number in range(3):
            self.ended(f"H-{number}", status="completed", at=LONG_AGO)
        self.ended("H-3", status="rolled_back", at=LONG_AGO)
        assert self.clean() == 4
        assert set(Saga.objects.values_list("id", flat=True)) == kept
        assert self.clean() == 0

    def test_of_one_status(self) -> None:
        kept = self.ended("H-1", status="rolled_back", at=LONG_AGO)
        self.ended("H-2", status="completed", at=LONG_AGO)
        assert self.clean(statuses=[SagazStatus.COMPLETED]) == 1
        assert Saga.objects.get().id == kept

    def test_of_what_has_not_ended_is_refused(self) -> None:
        self.ended("H-1", status="completed", at=LONG_AGO)
        with pytest.raises(JournalIsReadOnly, match="failed has not ended"):
            self.clean(statuses=[SagazStatus.COMPLETED, SagazStatus.FAILED])
        assert Saga.objects.exists()

    def test_takes_all_that_the_journal_has_of_it(self) -> None:
        saga = run_to_end(begin("house"))
        Intervention.objects.create(saga=saga, action="pause", who="ann", why="because")
        Saga.objects.update(created_at=LONG_AGO, finished_at=LONG_AGO)
        assert self.clean() == 1
        for model in (SagaStep, SagaAttempt, Intervention):
            assert not model.objects.exists()

    def test_leaves_the_inbox_so_that_nothing_is_done_again(self) -> None:
        headers = {
            "ce_specversion": b"1.0",
            "ce_id": b"1",
            "ce_type": b"house.build",
            "ce_source": b"/tests",
            "content-type": b"application/json",
        }
        value = b'{"house": "H-1"}'
        command = Record("house.commands", 0, 0, b"H-1", value, tuple(headers.items()))
        assert accepting.accept([command], consumer="sagas") == 1
        run_to_end(Saga.objects.get().id)
        Saga.objects.update(created_at=LONG_AGO, finished_at=LONG_AGO)
        assert self.clean() == 1
        assert InboxMessage.objects.count() == 1
        assert accepting.accept([command], consumer="sagas") == 0
        assert not Saga.objects.exists()
