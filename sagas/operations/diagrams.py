"""Draw a saga's path as a Mermaid flowchart.

sagaz draws ended sagas. Unfinished sagas are drawn here, because sagaz would show a saga in
progress as if it had succeeded.
"""

from collections.abc import Iterator
from uuid import UUID

from sagaz.core.decorators import SagaStepDefinition

from sagas.definition.registry import saga_type
from sagas.models import ENDED, Saga, SagaStatus, SagaStep, StepKind, StepStatus

Journal = dict[tuple[str, str], SagaStep]

_STYLES = """
    classDef done fill:#d4edda,stroke:#28a745,color:#155724
    classDef current fill:#cce5ff,stroke:#004085,color:#004085,stroke-width:3px
    classDef failed fill:#f8d7da,stroke:#dc3545,color:#721c24
    classDef undone fill:#fff3cd,stroke:#ffc107,color:#856404
    classDef todo fill:#e9ecef,stroke:#adb5bd,color:#6c757d,stroke-dasharray:4
    classDef startEnd fill:#333,stroke:#333,color:#fff"""


def diagram_of(saga_id: UUID, *, name: str) -> str:
    """Draw the flowchart of a saga, with the path taken so far.

    Args:
        saga_id: the saga; without a row in the journal, the saga is drawn as pending.
        name: the saga's name.

    Returns:
        The text of a Mermaid flowchart.
    """
    row = Saga.objects.filter(id=saga_id).first()
    found = saga_type(name, row.version if row else None)
    if found is None:
        return f"flowchart TB\n    UNKNOWN[no saga named {name} is registered]"
    saga = found.saga_class()
    names = {step.step_id for step in saga.get_steps()}  # a step of another version is not drawn
    rows = SagaStep.objects.filter(saga_id=saga_id)
    journal = {(step.step, step.kind): step for step in rows if step.step in names}
    if row is not None and row.status in ENDED:
        return str(saga.to_mermaid(highlight_trail=_trail(journal)))
    return "\n".join(_lines(saga.get_steps(), row, journal))


def _trail(journal: Journal) -> dict[str, object]:
    forward = {s.step: s.status for s in journal.values() if s.kind == StepKind.FORWARD}
    failed = [step for step, status in forward.items() if status != StepStatus.DONE]
    return {
        "completed_steps": [step for step, status in forward.items() if status == StepStatus.DONE],
        "failed_step": failed[0] if failed else None,
        "compensated_steps": [
            step for step, kind in journal if kind == StepKind.COMPENSATION and step in forward
        ],
    }


def _lines(steps: list[SagaStepDefinition], row: Saga | None, journal: Journal) -> Iterator[str]:
    """Draw a saga that has not ended: pending, processing, undoing or parked."""
    status = row.status if row else SagaStatus.PENDING
    yield "flowchart TB"
    yield "    START((●)):::startEnd"
    for step in steps:
        if not step.depends_on:
            yield f"    START -->|{_status_label(status)}| {step.step_id}"
        yield f"    {step.step_id}[{step.step_id}]:::{_style(step, row, journal)}"
        for before in step.depends_on:
            yield f"    {before} --> {step.step_id}"
        if (step.step_id, StepKind.COMPENSATION) in journal:
            undo = f"undo_{step.step_id}{{{{undo {step.step_id}}}}}:::undone"
            yield f"    {step.step_id} -. compensate .-> {undo}"
    yield _STYLES.strip("\n")


def _status_label(status: str) -> str:
    return "processing" if status == SagaStatus.RUNNING else status


def _style(step: SagaStepDefinition, row: Saga | None, journal: Journal) -> str:
    record = journal.get((step.step_id, StepKind.FORWARD))
    if record is not None:
        styles = {StepStatus.DONE.value: "done", StepStatus.STARTED.value: "current"}
        return styles.get(record.status, "failed")
    if row is None or row.status != SagaStatus.RUNNING:
        return "todo"
    done = {name for (name, kind), s in journal.items() if kind == "F" and s.status == "done"}
    is_next = step.step_id not in done and done.issuperset(step.depends_on)
    return "current" if is_next else "todo"
