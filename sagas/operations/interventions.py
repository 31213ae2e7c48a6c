"""What a person may do about a saga, each recorded with who, why and when in its transaction.

A parked saga goes on only by one of these:
- `retry`: the step that failed is tried again, with its retries renewed.
- `resolve`: a step counts as done, because a person has seen to it.
- `skip`: a compensation is left out.
- `cancel`: it is undone; for sagas that still run too.

`pause` and `resume` are for sagas that still run: a paused one is not claimed.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from saga_runtime.interventions import By
from sagas.definition.registry import saga_type
from sagas.errors import CancelRefused, SagasError
from sagas.journal import manual_changes
from sagas.journal.cancelling import request_cancel
from sagas.models import ACTIVE, Saga, SagaStatus, StepKind, StepStatus


class InterventionRefused(SagasError):  # noqa: N818 - states the fact
    """The saga, or its step, is not in a state in which this can be done; the text says why."""


def find(reference: str) -> Saga:
    """The saga with this id or, where only one has it, this business key.

    Raises:
        InterventionRefused: none, or several.
    """
    found: list[Saga] = []
    with suppress(ValueError):
        found = list(Saga.objects.filter(id=UUID(reference)))
    found = found or list(Saga.objects.filter(key=reference)[:2])
    if not found:
        raise InterventionRefused(f"there is no saga {reference}")
    if len(found) > 1:
        raise InterventionRefused(f"several sagas have the key {reference}: give the id")
    return found[0]


def retry(saga_id: UUID, *, by: By) -> None:
    """Let a parked saga go on: what failed is tried again, with its retries renewed, and no
    deadline any more."""
    with _intervening(saga_id, "retry", by) as saga:
        _require_parked(saga)
        manual_changes.renew_retries(saga)
        manual_changes.go_on(saga)


def resolve(saga_id: UUID, step: str, kind: StepKind, *, by: By) -> None:
    """Count a step of a parked saga as done, and let the saga go on."""
    with _intervening(saga_id, "resolve", by, step=step, kind=kind) as saga:
        _require_parked(saga)
        if kind is StepKind.FORWARD and (saga.failure or saga.cancel_reason):
            raise InterventionRefused(f"{saga} is being undone: settle what undoes {step}")
        if kind is StepKind.COMPENSATION and not saga.failure:
            raise InterventionRefused(f"{saga} is not being undone: nothing undoes {step} yet")
        is_pivot = _settle(saga, step, kind, StepStatus.DONE, by)
        if kind is StepKind.FORWARD and is_pivot:
            manual_changes.begin_pivot(saga)
        manual_changes.go_on(saga)


def skip(saga_id: UUID, step: str, *, by: By) -> None:
    """Leave out a compensation of a parked saga, and let the saga go on."""
    kind = StepKind.COMPENSATION
    with _intervening(saga_id, "skip", by, step=step, kind=kind) as saga:
        _require_parked(saga)
        if not saga.failure:
            raise InterventionRefused(f"{saga} is not being undone, there is nothing to leave out")
        _settle(saga, step, kind, StepStatus.SKIPPED, by)
        manual_changes.go_on(saga)


def cancel(saga_id: UUID, *, by: By) -> None:
    """Have the saga undone, where that is still possible."""
    try:
        saga = request_cancel(saga_id, who=by.who, reason=by.why)
    except CancelRefused as error:
        raise InterventionRefused(str(error)) from error
    if saga.failure and saga.status == SagaStatus.PARKED:  # for which a cancel changes nothing
        raise InterventionRefused(f"{saga} is being undone already: retry, resolve or skip")


def pause(saga_id: UUID, *, by: By) -> None:
    """Have no worker claim the saga; a step that runs is not interrupted."""
    with _intervening(saga_id, "pause", by) as saga:
        _require_active(saga)
        manual_changes.set_paused([saga.id], paused=True)


def resume(saga_id: UUID, *, by: By) -> None:
    """Let a paused saga be claimed again."""
    with _intervening(saga_id, "resume", by) as saga:
        if not saga.paused:
            raise InterventionRefused(f"{saga} is not paused")
        manual_changes.set_paused([saga.id], paused=False)


@contextmanager
def _intervening(
    saga_id: UUID, action: str, by: By, *, step: str = "", kind: str = ""
) -> Iterator[Saga]:
    with manual_changes.recorded(
        saga_id, action, who=by.who, why=by.why, step=step, kind=kind
    ) as saga:
        yield saga


def _require_parked(saga: Saga) -> None:
    if saga.status != SagaStatus.PARKED:
        raise InterventionRefused(f"{saga} is {saga.status}; this is for parked sagas")


def _require_active(saga: Saga) -> None:
    if saga.status not in ACTIVE:
        raise InterventionRefused(f"{saga} is {saga.status}; this is for sagas that still run")


def _settle(saga: Saga, step: str, kind: StepKind, status: StepStatus, by: By) -> bool:
    """Returns whether it is a pivot."""
    found = saga_type(saga.name, saga.version) or saga_type(saga.name)
    steps = found.saga_class().get_steps() if found else []
    known = {each.step_id: each.pivot for each in steps}
    if step not in known:
        raise InterventionRefused(f"{saga.name} has no step {step!r}; it has {', '.join(known)}")
    settled = manual_changes.settle_step(
        saga, step, kind, status, resolved_by=f"{by.who}: {by.why}"
    )
    if settled is not None:
        raise InterventionRefused(f"{step} of {saga} is {settled} already")
    return known[step]
