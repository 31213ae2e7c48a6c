"""List the statuses of a saga and of a step, and the changes between them that exist.

The journal is the only writer of these statuses, and its statements carry the tables as conditions:
see `may_become()`. `docs/sagas.md` draws them.
"""

from collections.abc import Iterable, Mapping

from sagas.models import SagaStatus, StepStatus

SAGA_TRANSITIONS: Mapping[SagaStatus, frozenset[SagaStatus]] = {
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
    # A worker claims the saga again, in the direction in which it was going.
    SagaStatus.WAITING: frozenset(
        {SagaStatus.RUNNING, SagaStatus.COMPENSATING, SagaStatus.CANCELLING}
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
    # A person lets the saga go on, forwards or backwards.
    SagaStatus.PARKED: frozenset({SagaStatus.RUNNING, SagaStatus.COMPENSATING}),
    SagaStatus.COMPLETED: frozenset(),
    SagaStatus.ROLLED_BACK: frozenset(),
}
"""For each status of a saga, those that may follow. Sagas begin as pending; completed and rolled
back are final."""

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
"""The statuses in which a step's row may be inserted."""

STEP_TRANSITIONS: Mapping[StepStatus, frozenset[StepStatus]] = {
    # The attempt's answer, or a person's word.
    StepStatus.STARTED: _ATTEMPT - {StepStatus.STARTED} | _BY_HAND,
    # The next attempt, or a person's word.
    StepStatus.FAILED: _ATTEMPT - {StepStatus.FAILED} | _BY_HAND,
    StepStatus.UNKNOWN: _ATTEMPT - {StepStatus.UNKNOWN} | _BY_HAND,
    StepStatus.DONE: frozenset(),
    StepStatus.SKIPPED: frozenset(),
}
"""For each status of a step, those that may follow; a step keeps its status from one attempt to the
next where both fail. Done and skipped are final."""


def may_become(*targets: SagaStatus) -> str:
    """Return the SQL condition that a row of sagas_saga may change to one of these statuses.

    A statement that changes a status has this condition, so that a late statement, of a worker that
    does not know yet what has become of the saga, changes nothing.
    """
    sources = {source for target in targets for source in sources_of(target)}
    return f"sagas_saga.status IN ({quoted(sorted(sources))})"


def sources_of(target: SagaStatus) -> list[SagaStatus]:
    """Return the statuses from which a saga may change to this status."""
    return [was for was, after in SAGA_TRANSITIONS.items() if target in after]


def quoted(statuses: Iterable[SagaStatus | StepStatus]) -> str:
    """Return statuses as an SQL list of literals."""
    return ", ".join(f"'{status.value}'" for status in statuses)
