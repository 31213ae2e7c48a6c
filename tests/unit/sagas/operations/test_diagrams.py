from typing import Any

import pytest
from sagaz import Saga as SagaClass
from sagaz import action, compensate

from sagas.definition.identity import saga_id
from sagas.models import Saga, SagaStatus, SagaStep
from sagas.operations.diagrams import diagram_of
from tests.unit.sagas.saga_running import Context, Register, begin

pytestmark = pytest.mark.django_db


class Travel(SagaClass):
    """Its methods' names sort otherwise than its steps come."""

    saga_name = "travel"

    @action("fly")
    async def z_fly(self, ctx: Context) -> None: ...

    @compensate("fly")
    async def z_cancel(self, ctx: Context) -> None: ...

    @action("sleep", depends_on=["fly"])
    def m_sleep(self, ctx: Context) -> None: ...

    @action("return", depends_on=["sleep"])
    def a_return(self, ctx: Context) -> None: ...


@pytest.fixture(autouse=True)
def _travel(register: Register) -> None:
    register(Travel)


def drawn(status: str, steps: dict[str, str], **saga: Any) -> str:
    """The diagram of a saga whose journal holds `{"fly:F": "done"}`."""
    row = begin("travel")
    Saga.objects.filter(id=row).update(status=status, **saga)
    for step, state in steps.items():
        name, kind = step.split(":")
        SagaStep.objects.create(saga_id=row, step=name, kind=kind, status=state, key=step)
    return diagram_of(row, name="travel")


def styles(diagram: str) -> dict[str, str]:
    """The class of each step in a diagram of ours."""
    lines = [line.strip() for line in diagram.splitlines()]
    return {line.split("[")[0]: line.split(":::")[1] for line in lines if "]:::" in line}


def test_not_yet_accepted_it_is_pending() -> None:
    diagram = diagram_of(saga_id("travel", "K-9"), name="travel")
    assert "START -->|pending| fly" in diagram
    assert set(styles(diagram).values()) == {"todo"}


def test_the_way_begins_at_the_step_that_waits_for_none() -> None:
    diagram = drawn("running", {})
    assert diagram.count("START -->") == 1
    assert "START -->|processing| fly" in diagram
    assert "fly --> sleep" in diagram
    assert "sleep --> return" in diagram


def test_processing_shows_where_it_is() -> None:
    diagram = drawn("running", {"fly:F": "done"})
    assert styles(diagram) == {"fly": "done", "sleep": "current", "return": "todo"}


def test_a_call_that_is_being_made() -> None:
    assert styles(drawn("running", {"fly:F": "started"}))["fly"] == "current"


@pytest.mark.parametrize("state", ["failed", "unknown"])
def test_compensating_shows_what_failed_and_what_is_undone(state: str) -> None:
    diagram = drawn("compensating", {"fly:F": "done", "sleep:F": state, "fly:C": "started"})
    assert "|compensating|" in diagram
    assert styles(diagram) == {"fly": "done", "sleep": "failed", "return": "todo"}
    assert "fly -. compensate .-> undo_fly" in diagram
    assert "undo_sleep" not in diagram


def test_parked() -> None:
    assert "|parked|" in drawn("parked", {"fly:F": "done", "fly:C": "failed"})


def test_completed() -> None:
    diagram = drawn("completed", {"fly:F": "done", "sleep:F": "done", "return:F": "done"})
    assert "class fly,return,sleep success" in diagram
    assert "SUCCESS" in diagram
    assert "ROLLED_BACK" not in diagram


def test_rolled_back() -> None:
    diagram = drawn("rolled_back", {"fly:F": "done", "sleep:F": "failed", "fly:C": "done"})
    assert "ROLLED_BACK" in diagram
    assert "class sleep failure" in diagram
    assert "class comp_fly compensation" in diagram
    assert "return" not in diagram


def test_rolled_back_with_nothing_to_undo() -> None:
    diagram = drawn("rolled_back", {"fly:F": "failed"})
    assert "class fly failure" in diagram
    assert "success" not in diagram.split("%% Styling")[1].split("classDef startEnd")[1]


@pytest.mark.parametrize("status", SagaStatus.values)
def test_every_status_can_be_drawn(status: str) -> None:
    assert drawn(status, {"fly:F": "done"}).startswith("flowchart TB")


def test_a_saga_that_nobody_knows() -> None:
    assert "no saga named other" in diagram_of(saga_id("other", "K"), name="other")
