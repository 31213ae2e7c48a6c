"""The last transaction of a saga of which its app wants to be told, or that parks."""

import logging
from contextlib import nullcontext

from django.db import transaction
from django.utils import timezone

from outbox.away import AWAY
from sagas import codec, rows, sql
from sagas.claims import Claimed
from sagas.errors import CancelRequested, HookFailed, LeaseLost
from sagas.hooks import Ending, SagaOutcome, call_hooks
from sagas.models import ACTIVE, Saga, SagaStatus
from sagas.outages import is_conflict, is_outage
from sagas.points import Point, reach

logger = logging.getLogger(__name__)


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


def _call_hooks(outcome: SagaOutcome) -> None:
    """Raises:
    HookFailed: and it is not the database that is to blame; a saga parks in spite of it.
    """
    is_parked = outcome.ending is Ending.PARKED
    try:
        with transaction.atomic() if is_parked else nullcontext():
            call_hooks(outcome)
    except Exception as error:
        if isinstance(error, AWAY) and (is_outage(error) or is_conflict(error)):
            raise
        if not is_parked:
            told = f"its on_finish hook fails: {type(error).__name__}: {error}"
            raise HookFailed(told) from error
        logger.exception("%s %s: its on_park hook failed", outcome.name, outcome.key)
