"""End a saga whose app has a hook for the end, or park a saga, in a last transaction."""

import threading
from collections.abc import Collection
from contextlib import nullcontext

from django.db import transaction
from django.db.transaction import TransactionManagementError

from saga_runtime.database_errors import ours_timed_out, ours_to_blame
from saga_runtime.logs import get_logger
from saga_runtime.round_trips import is_aborted
from saga_runtime.text import bounded, one_line
from sagas.crash_points import Point, reach
from sagas.definition.hooks import Ending, SagaOutcome
from sagas.definition.registry import call_hooks, has_hook
from sagas.errors import CancelRequested, EndRefused, HookFailed, LeaseLost
from sagas.failures import failure_of, stand_in
from sagas.journal import end_conditions, limits, sql, statements
from sagas.journal.records import Claimed
from sagas.journal.state_machine import sources_of
from sagas.models import Saga, SagaStatus

logger = get_logger(__name__)


_SWALLOWED = "it has caught an error of the database, behind which nothing can be committed"


def finish(
    saga: Claimed, outcome: SagaOutcome, *, steps: Collection[str], with_hook: bool = True
) -> None:
    """End or park a saga, and call the app's hook, in one transaction.

    A second call, after a commit whose answer was lost, changes nothing. A saga parks even where
    the app's hook raises.

    Args:
        saga: the saga, as claimed by the worker.
        outcome: how the saga ends; the hook's argument.
        steps: the names of all forward steps of the saga; to park a saga none are needed.
        with_hook: call the hook, if the app has one.

    Raises:
        LeaseLost: another worker has taken the saga over; nothing is written.
        CancelRequested: a cancel waits, and the saga was to complete; nothing is written.
        HookFailed: the hook has raised, or has the transaction rolled back; nothing is written.
        EndRefused: the journal does not allow this end; nothing is written.
        django.db.Error: nobody knows: the database is away, or somebody holds the saga's row.
    """
    committed, has_ended = threading.Event(), False
    with_hook = with_hook and has_hook(outcome.name, outcome.ending)
    try:
        with transaction.atomic():
            # Before the hook's own: where one of those raises, the commit has been made.
            transaction.on_commit(committed.set)
            has_ended = _finish(saga, outcome, steps, with_hook=with_hook)
            reach(Point.BEFORE_TERMINAL_COMMIT)
    except BaseException as error:
        if not committed.is_set():
            # Here the commit itself has failed, as by a deferred constraint on the hook's writes.
            if has_ended and with_hook:
                raise _hook_failed(outcome, error) from error
            raise
        _log(outcome, "it has ended, but an on_commit function of its hook failed", error)
    if not committed.is_set():
        raise HookFailed(f"its {_name(outcome)} hook has the transaction rolled back")
    if has_ended and outcome.ending is Ending.PARKED:
        _log_parked(outcome)


def _log_parked(outcome: SagaOutcome) -> None:
    logger.error(
        "%s %s is parked, a person must look: %s; see manage.py sagas show %s",
        *(outcome.name, outcome.key, outcome.reason, outcome.saga_id),
    )


def _finish(
    saga: Claimed, outcome: SagaOutcome, steps: Collection[str], *, with_hook: bool
) -> bool:
    """Write the end behind the fence, and tell whether the saga has ended just now."""
    limited = limits.limit_pauses() if with_hook else []
    *_, held = sql.run_together([*limited, statements.fence(saga)])
    if not held:
        raise LeaseLost(saga.loss)
    # Read under the lock: a cancel that comes now waits for the commit, and finds the saga ended.
    if outcome.ending is Ending.COMPLETED and held[0][0]:
        raise CancelRequested
    has_ended = _end(saga, outcome, steps)
    if has_ended and with_hook:
        call_hook(outcome)
    elif not has_ended and end_conditions.is_active(saga):
        raise EndRefused
    return has_ended


def _end(saga: Claimed, outcome: SagaOutcome, steps: Collection[str]) -> bool:
    """Write the end, and tell whether the saga had none before."""
    if outcome.ending is not Ending.PARKED:
        return bool(sql.run(*end_conditions.statement(saga, outcome.ending, steps)))
    # A second call finds the saga parked already, and does not call the hook again.
    held = Saga.objects.filter(id=saga.id, status__in=sources_of(SagaStatus.PARKED))
    return bool(held.update(status=SagaStatus.PARKED, park_reason=outcome.reason, finished_at=None))


def call_hook(outcome: SagaOutcome) -> None:
    """Call the app's hook.

    Raises:
        HookFailed: the hook has raised. A saga that parks is parked all the same, unless our own
            database may be to blame.
    """
    is_parked = outcome.ending is Ending.PARKED
    try:
        # A savepoint: what a hook that fails has written goes, and the saga parks.
        with transaction.atomic() if is_parked else nullcontext():
            call_hooks(outcome)
            _refuse_aborted()
    except BaseException as error:
        failed = _hook_failed(outcome, error)
        if failed.may_pass or not is_parked:
            raise failed from error
        _log(outcome, "its on_park hook failed", error)


def _refuse_aborted() -> None:
    """Check that the transaction can still be committed.

    Raises:
        TransactionManagementError: the app has caught an error of the database.
    """
    # PostgreSQL answers the COMMIT with a ROLLBACK then, which psycopg lets pass.
    if is_aborted():
        raise TransactionManagementError(_SWALLOWED)


def _hook_failed(outcome: SagaOutcome, error: BaseException) -> HookFailed:
    """Build the error of a hook that has failed.

    To be called where the hook's error was raised: in there the connection still tells whether our
    own database is to blame.
    """
    text = bounded(f"its {_name(outcome)} hook fails: {failure_of(error).text}")
    to_blame = ours_to_blame(error) or ours_timed_out(error)
    return HookFailed(text, may_pass=to_blame is not None)


def _name(outcome: SagaOutcome) -> str:
    return "on_park" if outcome.ending is Ending.PARKED else "on_finish"


def _log(outcome: SagaOutcome, what: str, error: BaseException) -> None:
    text = one_line(failure_of(error).text)
    logger.error("%s %s: %s: %s", outcome.name, outcome.key, what, text, exc_info=stand_in(error))
