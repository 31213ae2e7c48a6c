"""The last transaction of a saga of which its app wants to be told, or that parks."""

import threading
from collections.abc import Collection
from contextlib import nullcontext

from django.db import transaction

from saga_runtime.logs import get_logger
from saga_runtime.text import bounded, one_line
from sagas import ends, rows, sql
from sagas.claims import Claimed
from sagas.errors import CancelRequested, EndRefused, HookFailed, LeaseLost
from sagas.failures import failure_of, stand_in
from sagas.hooks import Ending, SagaOutcome, call_hooks
from sagas.models import ACTIVE, Saga, SagaStatus
from sagas.outages import ours_to_blame
from sagas.points import Point, reach

logger = get_logger(__name__)


def finish(saga: Claimed, outcome: SagaOutcome, *, steps: Collection[str]) -> None:
    """The saga's last transaction, with what its app makes of it. A second time, after a commit
    whose answer was lost, it changes nothing. A saga parks also where its app's hook fails.

    Args:
        steps: the names of all its forward steps; none are needed to park it.

    Raises:
        LeaseLost, CancelRequested, HookFailed, EndRefused: nothing is written.
    """
    committed, has_ended = threading.Event(), False
    try:
        with transaction.atomic():
            transaction.on_commit(committed.set)  # before any of the hook's own
            has_ended = _finish(saga, outcome, steps)
            reach(Point.BEFORE_TERMINAL_COMMIT)
    except BaseException as error:
        if not committed.is_set():
            raise
        _log(outcome, "it has ended, but an on_commit function of its hook failed", error)
    if has_ended and outcome.ending is Ending.PARKED:
        _tell_a_person(outcome)


def _tell_a_person(outcome: SagaOutcome) -> None:
    logger.error(
        "%s %s is parked, a person must look: %s; see manage.py sagas show %s",
        *(outcome.name, outcome.key, outcome.reason, outcome.saga_id),
    )


def _finish(saga: Claimed, outcome: SagaOutcome, steps: Collection[str]) -> bool:
    """Whether it has ended just now."""
    held = sql.run(*rows.fence(saga))
    if not held:
        raise LeaseLost(f"{saga.name} {saga.key} was taken over by another worker")
    if outcome.ending is Ending.COMPLETED and held[0][0]:
        raise CancelRequested
    has_ended = _end(saga, outcome, steps)
    if has_ended:
        _call_hooks(outcome)
    elif ends.is_active(saga):
        raise EndRefused
    return has_ended


def _end(saga: Claimed, outcome: SagaOutcome, steps: Collection[str]) -> bool:
    """Write the end; whether the saga had none before."""
    if outcome.ending is not Ending.PARKED:
        return bool(sql.run(*ends.statement(saga, outcome.ending, steps)))
    active = Saga.objects.filter(id=saga.id, status__in=ACTIVE)
    return bool(
        active.update(status=SagaStatus.PARKED, park_reason=outcome.reason, finished_at=None)
    )


def _call_hooks(outcome: SagaOutcome) -> None:
    """Raises:
    HookFailed: and it is not the database that is to blame; a saga parks in spite of it.
    """
    is_parked = outcome.ending is Ending.PARKED
    try:
        with transaction.atomic() if is_parked else nullcontext():
            call_hooks(outcome)
    except BaseException as error:
        if (to_blame := ours_to_blame(error)) is not None:
            raise to_blame from to_blame.__cause__  # which has its code
        if not is_parked:
            told = bounded(f"its on_finish hook fails: {failure_of(error).text}")
            raise HookFailed(told) from error
        _log(outcome, "its on_park hook failed", error)


def _log(outcome: SagaOutcome, what: str, error: BaseException) -> None:
    told = one_line(failure_of(error).text)
    logger.error("%s %s: %s: %s", outcome.name, outcome.key, what, told, exc_info=stand_in(error))
