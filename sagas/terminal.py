"""The last transaction of a saga of which its app wants to be told, or that parks."""

from contextlib import nullcontext

from django.db import Error, connection, transaction
from django.utils import timezone

from outbox.away import AWAY
from saga_runtime.logs import get_logger
from sagas import codec, rows, sql
from sagas.claims import Claimed
from sagas.errors import CancelRequested, HookFailed, LeaseLost
from sagas.hooks import Ending, SagaOutcome, call_hooks
from sagas.models import ACTIVE, Saga, SagaStatus
from sagas.outages import is_conflict, is_of_another, is_outage, our_outage
from sagas.points import Point, reach

logger = get_logger(__name__)


def finish(saga: Claimed, outcome: SagaOutcome) -> None:
    """The saga's last transaction, with what its app makes of it. A second time, after a commit
    whose answer was lost, it changes nothing. A saga parks also where its app's hook fails.

    Raises:
        LeaseLost, CancelRequested, HookFailed: nothing is written.
    """
    with transaction.atomic():
        held = sql.run(*rows.fence(saga))
        if not held:
            raise LeaseLost(f"{saga.name} {saga.key} was taken over by another worker")
        if outcome.ending is Ending.COMPLETED and held[0][0]:
            raise CancelRequested
        is_parked = outcome.ending is Ending.PARKED
        finished = Saga.objects.filter(id=saga.id, status__in=ACTIVE).update(
            status=SagaStatus(outcome.ending.value),
            park_reason=codec.printable(outcome.reason) if is_parked else "",
            finished_at=None if is_parked else timezone.now(),
        )
        if finished:
            _call_hooks(outcome)
        reach(Point.BEFORE_TERMINAL_COMMIT)
    if finished and is_parked:
        _tell_a_person(outcome)


def _tell_a_person(outcome: SagaOutcome) -> None:
    logger.error(
        "%s %s is parked, a person must look: %s; see manage.py sagas show %s",
        outcome.name,
        outcome.key,
        outcome.reason,
        outcome.saga_id,
    )


def _call_hooks(outcome: SagaOutcome) -> None:
    """Raises:
    HookFailed: and it is not the database that is to blame; a saga parks in spite of it.
    """
    is_parked = outcome.ending is Ending.PARKED
    try:
        with transaction.atomic() if is_parked else nullcontext():
            call_hooks(outcome)
    except Exception as error:
        if (to_blame := _our_database(error)) is not None:
            raise to_blame from to_blame.__cause__  # which has its code
        if not is_parked:
            told = f"its on_finish hook fails: {type(error).__name__}: {error}"
            raise HookFailed(told) from error
        logger.exception("%s %s: its on_park hook failed", outcome.name, outcome.key)


def _our_database(error: Exception) -> Error | None:
    """Find our own database's part in it: it is away, or has ended our transaction. Then the same
    may work later, and the hook has not failed."""
    if (outage := our_outage(error)) is not None:
        return outage
    if not isinstance(error, AWAY) or is_of_another(error):
        return None
    is_away = is_outage(error) and not connection.is_usable()
    return error if is_conflict(error) or is_away else None
