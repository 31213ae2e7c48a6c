"""List the statuses of a saga and of a step, and the allowed changes of each status.

The journal is the only writer of these statuses. A run's statements have the tables as conditions,
see `may_become()`; a claim, and a person's changes, look at the present status first.
`docs/sagas.md` draws the tables.
"""

from collections.abc import Iterable, Mapping

from sagas.models import SagaStatus, StepStatus

_WORKER_TRANSITIONS: Mapping[SagaStatus, frozenset[SagaStatus]] = {
    # A worker claims the saga.
    SagaStatus.PENDING: frozenset({SagaStatus.RUNNING}),
    SagaStatus.RUNNING: frozenset(
        {
            SagaStatus.WAITING,  # for the next attempt; no worker holds the saga meanwhile
            SagaStatus.COMPENSATING,  # a step has failed for good
            SagaStatus.CANCELLING,  # a cancel is applied
            SagaStatus.COMPLETED,
            SagaStatus.PARKED,  # a person must look
        }
    ),
    # A worker claims the saga again, in the direction in which it was going. Or the run that wrote
    # `waiting` goes on under the same epoch: the last rest of a step beside ended meanwhile.
    SagaStatus.WAITING: frozenset(
        {
            SagaStatus.RUNNING,
            SagaStatus.COMPENSATING,
            SagaStatus.CANCELLING,
            SagaStatus.COMPLETED,
            SagaStatus.ROLLED_BACK,
            SagaStatus.PARKED,
        }
    ),
    SagaStatus.COMPENSATING: frozenset(
        {
            SagaStatus.WAITING,
            SagaStatus.CANCELLING,  # claimed after a person let a cancelled saga go on
            SagaStatus.ROLLED_BACK,
            SagaStatus.PARKED,
        }
    ),
    SagaStatus.CANCELLING: frozenset(
        {SagaStatus.WAITING, SagaStatus.ROLLED_BACK, SagaStatus.PARKED}
    ),
    SagaStatus.PARKED: frozenset(),
    SagaStatus.COMPLETED: frozenset(),
    SagaStatus.ROLLED_BACK: frozenset(),
}

_PERSON_TRANSITIONS: Mapping[SagaStatus, frozenset[SagaStatus]] = {
    # A person lets the saga go on, forwards or backwards.
    SagaStatus.PARKED: frozenset({SagaStatus.RUNNING, SagaStatus.COMPENSATING}),
}

SAGA_TRANSITIONS: Mapping[SagaStatus, frozenset[SagaStatus]] = {
    was: after | _PERSON_TRANSITIONS.get(was, frozenset())
    for was, after in _WORKER_TRANSITIONS.items()
}
"""For each status of a saga, the statuses allowed next. Sagas begin as pending; completed and
rolled back are final."""

_ATTEMPT = frozenset({StepStatus.STARTED, StepStatus.DONE, StepStatus.FAILED, StepStatus.UNKNOWN})
_BY_HAND = frozenset({StepStatus.DONE, StepStatus.SKIPPED})

STEP_BEGINS: frozenset[StepStatus] = frozenset(
    {
        StepStatus.STARTED,  # an external step: its call may have an effect from now on
        StepStatus.DONE,  # a local step, whose journal row commits with its writes
        StepStatus.FAILED,
        StepStatus.UNKNOWN,
        StepStatus.SKIPPED,  # a compensation that a person leaves out before its first attempt
    }
)
"""The statuses allowed for a new row of a step."""

STEP_TRANSITIONS: Mapping[StepStatus, frozenset[StepStatus]] = {
    # The attempt's answer, or a person's word.
    StepStatus.STARTED: _ATTEMPT - {StepStatus.STARTED} | _BY_HAND,
    # The next attempt, or a person's word.
    StepStatus.FAILED: _ATTEMPT - {StepStatus.FAILED} | _BY_HAND,
    StepStatus.UNKNOWN: _ATTEMPT - {StepStatus.UNKNOWN} | _BY_HAND,
    StepStatus.DONE: frozenset(),
    StepStatus.SKIPPED: frozenset(),
}
"""For each status of a step, the statuses allowed next; where two attempts in a row fail, the
status stays. Done and skipped are final."""


def may_become(target: SagaStatus) -> str:
    """Return the SQL condition for a worker's change of a row of sagas_saga to a status.

    With the condition, a worker that has not heard of a change to the saga changes nothing. A row
    of the same status may be written again, unless the status is final.
    """
    sources = sources_of(target)
    if SAGA_TRANSITIONS[target]:
        sources.append(target)
    return f"sagas_saga.status IN ({quoted(sources)})"


def sources_of(target: SagaStatus) -> list[SagaStatus]:
    """Return the statuses from which a worker may change a saga to the target."""
    return [was for was, after in _WORKER_TRANSITIONS.items() if target in after]


def quoted(statuses: Iterable[SagaStatus | StepStatus]) -> str:
    """Return statuses as an SQL list of literals."""
    return ", ".join(f"'{status.value}'" for status in statuses)
