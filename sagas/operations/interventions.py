"""Change a saga by hand, with who, why and when recorded in the same transaction.

A parked saga goes on only by an intervention:
- `retry`: the failed step is tried again, with all its retries.
- `resolve`: a step counts as done, because a person has seen to the step.
- `skip`: a compensation is left out.
- `cancel`: the saga is undone. Running sagas may be cancelled too.

`pause` and `resume` are for running sagas: no worker claims a paused saga.
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
    """Raised where the state of a saga or step forbids the intervention; the text says why."""


def find_saga(reference: str) -> Saga:
    """Return the saga with this id or this business key.

    Args:
        reference: an id, or a business key that only a single saga has.

    Raises:
        InterventionRefused: no saga is found, or several.
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
    """Let a parked saga try the failed step again, with all its retries and without a deadline.

    Raises:
        InterventionRefused: the saga is not parked.
    """
    with _intervening(saga_id, "retry", by) as saga:
        _require_parked(saga)
        manual_changes.renew_retries(saga)
        manual_changes.go_on(saga)


def resolve(saga_id: UUID, step: str, kind: StepKind, *, by: By) -> None:
    """Count a step of a parked saga as done, and let the saga go on.

    Args:
        saga_id: the saga.
        step: the step's name.
        kind: whether the step or its compensation is meant.
        by: who intervenes, and why.

    Raises:
        InterventionRefused: the saga is not parked or goes the other way, or the step is unknown
            or settled already.
    """
    with _intervening(saga_id, "resolve", by, step=step, kind=kind) as saga:
        _require_parked(saga)
        if kind is StepKind.FORWARD and (saga.failure or saga.cancel_reason):
            raise InterventionRefused(f"{saga} is being undone: settle what undoes {step}")
        if kind is StepKind.COMPENSATION and not saga.failure:
            raise InterventionRefused(f"{saga} is not being undone: nothing undoes {step} yet")
        is_pivot = _settle(saga, step, kind, StepStatus.DONE, by)
        # A pivot has had its effect, whoever saw to it: the saga must not be undone from here on.
        if kind is StepKind.FORWARD and is_pivot:
            manual_changes.begin_pivot(saga)
        manual_changes.go_on(saga)


def skip(saga_id: UUID, step: str, *, by: By) -> None:
    """Leave out a compensation of a parked saga, and let the saga go on.

    Args:
        saga_id: the saga.
        step: the name of the step that stays as it is.
        by: who intervenes, and why.

    Raises:
        InterventionRefused: the saga is not parked or not being undone, or the step is unknown or
            settled already.
    """
    kind = StepKind.COMPENSATION
    with _intervening(saga_id, "skip", by, step=step, kind=kind) as saga:
        _require_parked(saga)
        if not saga.failure:
            raise InterventionRefused(f"{saga} is not being undone, there is nothing to leave out")
        _settle(saga, step, kind, StepStatus.SKIPPED, by)
        manual_changes.go_on(saga)


def cancel(saga_id: UUID, *, by: By) -> None:
    """Have a saga undone.

    Raises:
        InterventionRefused: the saga has ended, is past its pivot, or is being undone already.
    """
    try:
        saga = request_cancel(saga_id, who=by.who, reason=by.why)
    except CancelRefused as error:
        raise InterventionRefused(str(error)) from error
    # A saga that is parked on its way back gets on only by a change to the compensation.
    if saga.failure and saga.status == SagaStatus.PARKED:
        raise InterventionRefused(f"{saga} is being undone already: retry, resolve or skip")


def pause(saga_id: UUID, *, by: By) -> None:
    """Keep workers from claiming a saga; a running step is not interrupted.

    Raises:
        InterventionRefused: the saga has ended or is parked.
    """
    with _intervening(saga_id, "pause", by) as saga:
        _require_active(saga)
        manual_changes.set_paused([saga.id], paused=True)


def resume(saga_id: UUID, *, by: By) -> None:
    """Let a paused saga be claimed again.

    Raises:
        InterventionRefused: the saga is not paused.
    """
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
    """Settle a step; return whether the step is a pivot."""
    # Where the class of the saga's own version is gone, the newest version's steps have to do.
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
