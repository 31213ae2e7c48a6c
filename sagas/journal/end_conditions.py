"""Guard the ends of sagas: each statement that ends a saga has a condition for the end.

Whatever the run or sagaz's engine has made of an exception: no saga is `completed` while a forward
step is not done. No saga is `rolled_back` without a decision, or while a step that may have had an
effect lacks a compensation, done or settled by a person.
"""

from collections.abc import Collection

from django.utils import timezone

from sagas.definition.hooks import Ending
from sagas.journal import sql
from sagas.journal.records import Claimed
from sagas.journal.state_machine import may_become, quoted
from sagas.journal.statements import IS_HELD, held_by
from sagas.models import ACTIVE, MAY_HAVE_HAPPENED, Saga, SagaStatus, SagaStep, StepKind, StepStatus

# Skipped: a person has left the compensation out, and takes the effect of the step as it is.
_SETTLED = (StepStatus.DONE, StepStatus.SKIPPED)

IS_ACTIVE = f"sagas_saga.status IN ({quoted(ACTIVE)})"
# Decided against, and no step that may have had its effect lacks a settled compensation.
IS_UNDONE = f"""{may_become(SagaStatus.ROLLED_BACK)} AND sagas_saga.failure <> '' AND NOT EXISTS (
    SELECT 1 FROM sagas_step AS forward WHERE forward.saga_id = sagas_saga.id
    AND forward.kind = '{StepKind.FORWARD}' AND forward.status IN ({quoted(MAY_HAVE_HAPPENED)})
    AND NOT EXISTS (
        SELECT 1 FROM sagas_step AS back WHERE back.saga_id = forward.saga_id
        AND back.step = forward.step AND back.kind = '{StepKind.COMPENSATION}'
        AND back.status IN ({quoted(_SETTLED)})
    )
)"""  # noqa: S608 - constants


def is_done(names: str, count: str) -> str:
    """Return the condition that every forward step is done.

    Args:
        names: an SQL list, or a query, of the names of all forward steps.
        count: an SQL expression of the number of names.
    """
    # Counted, not NOT EXISTS of an open step: a step that has never begun has no row.
    return (
        f"{may_become(SagaStatus.COMPLETED)} AND"  # noqa: S608 - constants
        " (SELECT count(*) FROM sagas_step AS forward WHERE forward.saga_id = sagas_saga.id"
        f" AND forward.kind = '{StepKind.FORWARD}' AND forward.status = '{StepStatus.DONE}'"
        f" AND forward.step IN ({names})) = {count}"
    )


def statement(saga: Claimed, ending: Ending, steps: Collection[str]) -> sql.Statement:
    """Build the statement that ends a saga, and returns the saga's id.

    The statement returns no row where the journal refuses the end, or the saga has ended already.
    The caller has locked the saga's row, and compared the epoch.

    Args:
        saga: the saga.
        ending: COMPLETED or ROLLED_BACK.
        steps: the names of all forward steps of the saga.
    """
    if ending is Ending.COMPLETED:
        condition = is_done(sql.listed([*steps]) or "NULL", "%s")
        params = [*steps, len(steps)]
    else:
        condition, params = IS_UNDONE, []
    text = (
        "UPDATE sagas_saga SET status = %s, finished_at = %s, park_reason = ''"  # noqa: S608
        f" WHERE id = %s AND {IS_ACTIVE} AND {condition} RETURNING id"
    )
    now = sql.text_of(timezone.now())
    return text, [ending.value, now, sql.id_text(saga.id), *params]


def completion(saga: Claimed, names: Collection[str], *, pivot: bool) -> sql.Statement:
    """Build the statement that completes a saga, and returns the saga's id: its own fence.

    The statement returns no row where another worker has claimed the saga, a cancel waits, the
    journal refuses the end, or the saga has ended already.

    Args:
        saga: the saga, as claimed by the worker.
        names: of all forward steps of the saga.
        pivot: a pivot begins in this transaction.
    """
    text = (
        "UPDATE sagas_saga SET status = %s, finished_at = %s, park_reason = '',"  # noqa: S608
        f" past_pivot = {'%s' if pivot else 'past_pivot'}"
        f" WHERE {IS_HELD} AND cancel_reason = '' AND {IS_ACTIVE}"
        f" AND {is_done(sql.listed([*names]), '%s')} RETURNING id"
    )
    now = sql.text_of(timezone.now())
    begins = [True] if pivot else []
    return text, [Ending.COMPLETED.value, now, *begins, *held_by(saga), *names, len(names)]


def is_active(saga: Claimed) -> bool:
    """Tell whether a saga has not ended."""
    return Saga.objects.filter(id=saga.id, status__in=ACTIVE).exists()


def what_is_open(saga: Claimed, ending: Ending, steps: Collection[str]) -> str:
    """Describe why a saga may not end so, for people."""
    rows = SagaStep.objects.filter(saga_id=saga.id).order_by("id")
    found = {(row.kind, row.step): row.status for row in rows}
    if ending is Ending.COMPLETED:
        reasons = [
            f"{step} is {found.get((StepKind.FORWARD, step), 'not begun')}"
            for step in steps
            if found.get((StepKind.FORWARD, step)) != StepStatus.DONE
        ]
    else:
        reasons = [
            f"undoing {step} is {found.get((StepKind.COMPENSATION, step), 'not begun')}"
            for (kind, step), status in found.items()
            if kind == StepKind.FORWARD
            and status in MAY_HAVE_HAPPENED
            and found.get((StepKind.COMPENSATION, step)) not in _SETTLED
        ]
    return f"it was to be {ending}, but {', '.join(reasons) or 'nothing has decided against it'}"
