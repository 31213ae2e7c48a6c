"""No saga ends by an accident: the journal itself refuses an end that it has no reason for."""

import logging
from typing import Any

import pytest
from django.db import connection
from sagaz import Saga as SagaClass
from sagaz.core.decorators import ExecutionEngine

from saga_runtime.interventions import By
from sagas import StepRejected
from sagas.definition.hooks import Ending, SagaOutcome
from sagas.errors import EndRefused
from sagas.journal import end_conditions, writing
from sagas.journal.entries import End, Entry, Fail, Refused, Wait, Written
from sagas.journal.records import Claimed
from sagas.models import Saga, SagaStep, StepKind
from sagas.operations import interventions
from sagas.run.attempts import Attempts
from sagas.run.engine import DrivenSaga
from tests.unit.sagas import journal_entries as entries
from tests.unit.sagas.saga_running import Register, begin, journal_of, run_to_end
from tests.unit.sagas.scripted_sagas import Part, Script, chain, claimed_by, raising

pytestmark = pytest.mark.django_db(transaction=True)

STEPS = ("reserve", "charge", "ship")
WRITTEN, REFUSED = Written(), Refused()
Rows = dict[str, str]  # the status by step and kind, as `charge:F`


@pytest.fixture(autouse=True)
def shop(register: Register, script: Script) -> type[SagaClass]:
    made = script.saga("shop", *chain(Part("reserve"), Part("charge", external=True), Part("ship")))
    register(made)
    return made


ALL_DONE = {f"{step}:F": "done" for step in STEPS}
COMPLETED: dict[str, tuple[Rows, bool]] = {
    "all done": (ALL_DONE, True),
    "nothing begun": ({}, False),
    "one not begun": ({"reserve:F": "done", "ship:F": "done"}, False),
    **{
        f"one {status}": (ALL_DONE | {"charge:F": status}, False)
        for status in ("started", "failed", "unknown", "skipped")
    },
    "one done under another kind": (
        {"reserve:F": "done", "charge:C": "done", "ship:F": "done"},
        False,
    ),
    "another step instead": (
        {"reserve:F": "done", "refund:F": "done", "ship:F": "done"},
        False,
    ),
}
ROLLED_BACK: dict[str, tuple[Rows, bool]] = {
    "nothing begun": ({}, True),
    "failed, so nothing to undo": ({"reserve:F": "failed"}, True),
    "undone": ({"reserve:F": "done", "reserve:C": "done"}, True),
    "left out by a person": ({"charge:F": "unknown", "charge:C": "skipped"}, True),
    **{f"{status}, not undone": ({"charge:F": status}, False) for status in ("done", "unknown")},
    "started, not undone": ({"charge:F": "started"}, False),
    **{
        f"undoing {status}": ({"charge:F": "done", "charge:C": status}, False)
        for status in ("started", "failed", "unknown")
    },
    "another undone": ({"charge:F": "done", "reserve:C": "done"}, False),
}
CASES = [
    pytest.param(ending, rows, allowed, id=f"{ending}: {title}")
    for ending, cases in ((Ending.COMPLETED, COMPLETED), (Ending.ROLLED_BACK, ROLLED_BACK))
    for title, (rows, allowed) in cases.items()
]


def held(
    rows: Rows, *, key: str = "K-1", failure: str = "no", ending: Ending = Ending.COMPLETED
) -> Claimed:
    """A saga of this worker's, with these steps in the journal, that has been decided against; it
    is being undone where it is to be rolled back."""
    saga = begin("shop", key=key)
    for label, status in rows.items():
        step, kind = label.split(":")
        SagaStep.objects.create(saga_id=saga, step=step, kind=kind, status=status, key=label)
    found = claimed_by("w", lease=60)
    Saga.objects.filter(id=saga).update(failure=failure, status=before(ending))
    return found


def before(ending: Ending) -> str:
    return "compensating" if ending is Ending.ROLLED_BACK else "running"


def end(saga: Claimed, ending: Ending) -> Entry:
    return Entry(saga=saga, changes=(End(ending, STEPS),))


def status(saga: Claimed) -> str:
    return Saga.objects.get(id=saga.id).status


class TestTheStatement:
    """Each way in which an end is written."""

    @pytest.mark.parametrize(("ending", "rows", "allowed"), CASES)
    def test_alone(self, ending: Ending, rows: Rows, *, allowed: bool) -> None:
        saga = held(rows, ending=ending)
        assert writing.write([end(saga, ending)]) == [WRITTEN if allowed else REFUSED]
        assert status(saga) == (ending if allowed else before(ending))
        assert (Saga.objects.get(id=saga.id).finished_at is not None) == allowed

    @pytest.mark.parametrize(("ending", "rows", "allowed"), CASES)
    def test_beside_what_needs_several_statements(
        self, ending: Ending, rows: Rows, *, allowed: bool
    ) -> None:
        other, saga = held({}, key="K-0"), held(rows, ending=ending)
        verdicts = writing.write([Entry(saga=other, changes=(Wait(60),)), end(saga, ending)])
        assert verdicts == [WRITTEN, WRITTEN if allowed else REFUSED]
        assert status(saga) == (ending if allowed else before(ending))
        assert status(other) == "waiting"

    @pytest.mark.parametrize(("ending", "rows", "allowed"), CASES)
    def test_with_a_hook(
        self, ending: Ending, rows: Rows, on_finish: Any, *, allowed: bool
    ) -> None:
        heard: list[SagaOutcome] = []
        on_finish("shop", heard.append)
        saga = held(rows, ending=ending)
        if allowed:
            entries.finish(saga, ending, steps=STEPS)
        else:
            with pytest.raises(EndRefused):
                entries.finish(saga, ending, steps=STEPS)
        assert status(saga) == (ending if allowed else before(ending))
        assert len(heard) == allowed

    def test_one_that_is_refused_spoils_no_other(self) -> None:
        good, bad, also = held(ALL_DONE, key="1"), held({}, key="2"), held(ALL_DONE, key="3")
        group = [end(each, Ending.COMPLETED) for each in (good, bad, also)]
        assert writing.write(group) == [WRITTEN, REFUSED, WRITTEN]
        assert [status(each) for each in (good, bad, also)] == ["completed", "running", "completed"]

    def test_nothing_is_undone_that_nothing_has_decided_against(self) -> None:
        saga = held({"reserve:F": "failed"}, failure="")
        assert writing.write([end(saga, Ending.ROLLED_BACK)]) == [REFUSED]
        text = end_conditions.what_is_open(saga, Ending.ROLLED_BACK, STEPS)
        assert text == "it was to be rolled_back, but nothing has decided against it"

    def test_one_that_has_ended_stays_so_whatever_is_open(self) -> None:
        """A commit whose answer was lost is written again."""
        saga = held(ALL_DONE)
        writing.write([end(saga, Ending.COMPLETED)])
        SagaStep.objects.filter(saga_id=saga.id, step="charge").update(status="started")
        assert writing.write([end(saga, Ending.COMPLETED)]) == [WRITTEN]
        entries.finish(saga, Ending.COMPLETED, steps=STEPS)
        assert status(saga) == "completed"

    def test_a_step_done_in_the_same_group_is_not_a_reason_yet(self) -> None:
        """Ends come behind what they follow from: the run waits for it."""
        saga = held({"reserve:F": "done"})
        writing.write([Entry(saga=saga, changes=(Fail("no"),))])
        assert writing.write([end(saga, Ending.COMPLETED)]) == [REFUSED]


async def _nothing(*_: object, **__: object) -> dict[str, Any]:
    return {}


@pytest.fixture(params=[False, True], ids=["no hook", "hook"])
def hook(request: pytest.FixtureRequest, on_finish: Any) -> list[SagaOutcome]:
    """Without a hook the end is written by group commit, with one by the last transaction."""
    heard: list[SagaOutcome] = []
    if request.param:
        on_finish("shop", heard.append)
    return heard


def errors(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR)


class TestAWrapperThatIsBroken:
    """What the executor takes for done is not what the journal has."""

    def test_that_swallows_a_failure_completes_nothing(
        self,
        script: Script,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        hook: list[SagaOutcome],
    ) -> None:
        real = Attempts.until_done

        async def swallowing(*args: Any) -> Any:
            try:
                return await real(*args)
            except Exception:  # noqa: BLE001 - as an engine might
                args[0]._state.failure = ""
                return {}

        script.acts["charge"] = raising(ConnectionError("away"))
        monkeypatch.setattr(Attempts, "until_done", swallowing)
        saga = run_to_end(begin("shop"))
        assert saga.status == "parked"
        assert saga.park_reason == "it was to be completed, but charge is unknown"
        assert saga.park_reason in errors(caplog)
        assert hook == []

    def test_that_leaves_out_a_step(
        self, monkeypatch: pytest.MonkeyPatch, hook: list[SagaOutcome]
    ) -> None:
        real = DrivenSaga._forward

        async def leaving_out(run: DrivenSaga, step: Any, context: Any) -> Any:
            return {} if step.name == "charge" else await real(run, step, context)

        monkeypatch.setattr(DrivenSaga, "_forward", leaving_out)
        saga = run_to_end(begin("shop"))
        assert saga.status == "parked"
        assert saga.park_reason == "it was to be completed, but charge is started"
        assert hook == []

    def test_that_leaves_out_a_compensation(
        self, script: Script, monkeypatch: pytest.MonkeyPatch, hook: list[SagaOutcome]
    ) -> None:
        script.acts["ship"] = raising(StepRejected("no"))
        monkeypatch.setattr(DrivenSaga, "_compensate", _nothing)
        saga = run_to_end(begin("shop"))
        assert (saga.status, saga.failure) == ("parked", "no")
        assert saga.park_reason == (
            "it was to be rolled_back, but undoing reserve is not begun, "
            "undoing charge is not begun"
        )
        assert hook == []

    def test_an_engine_that_fails_by_itself_undoes_nothing(
        self,
        script: Script,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        hook: list[SagaOutcome],
    ) -> None:
        async def run(*_: object, **__: object) -> Any:
            raise RuntimeError("the engine is broken")

        monkeypatch.setattr(ExecutionEngine, "run", run)
        saga = run_to_end(begin("shop"))
        assert (saga.status, saga.failure, script.calls) == ("parked", "", [])
        assert "sagaz failed, and no step of it" in saga.park_reason
        assert "Traceback" in caplog.text
        assert "sagaz fails" in errors(caplog)
        assert hook == []

    def test_once_mended_a_person_lets_it_go_on(
        self, script: Script, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as broken:
            broken.setattr(Attempts, "until_done", _nothing)
            saga = run_to_end(begin("shop"))
        assert (saga.status, script.calls) == ("parked", [])
        interventions.retry(saga.id, by=By("ann", "mended"))
        saga = run_to_end(saga.id)
        assert (saga.status, script.calls) == ("completed", [*STEPS])

    def test_a_step_that_a_person_has_resolved_is_done(self, script: Script) -> None:
        held_up = begin("shop")
        dead = claimed_by("dead")
        entries.done(dead, "reserve", "F", attempt=1, result={})
        Saga.objects.filter(id=held_up).update(status="parked")
        interventions.resolve(held_up, "charge", StepKind.FORWARD, by=By("ann", "by hand"))
        assert run_to_end(held_up).status == "completed"
        assert script.calls == ["ship"]
        assert journal_of(held_up)["charge:F"][0] == "done"


@pytest.mark.on_sqlite
def test_the_guard_reads_an_index(shop: type[SagaClass]) -> None:
    """An end looks at its own saga's steps, however many there are."""
    saga = held(ALL_DONE)
    text, params = end_conditions.statement(saga, Ending.COMPLETED, STEPS)
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {text}", params)
        plan = " ".join(str(row) for row in cursor.fetchall())
    assert "SCAN" not in plan
