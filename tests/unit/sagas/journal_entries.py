"""What a worker that died had written into the journal."""

from collections.abc import Callable, Collection
from typing import Any

from django.utils import timezone

from sagas.definition.hooks import Ending, SagaOutcome
from sagas.errors import LeaseLost
from sagas.journal import codec, final_transaction, local_step, writing
from sagas.journal.entries import BeginPivot, Change, Entry, Fail, StepEntry, Written
from sagas.journal.records import Claimed
from sagas.models import StepStatus


def started(saga: Claimed, step: str, kind: str, *, attempt: int) -> None:
    _write(saga, _entry(step, kind, StepStatus.STARTED, attempt))


def done(
    saga: Claimed, step: str, kind: str, *, attempt: int, result: Any, pivot: bool = False
) -> None:
    entry = _entry(step, kind, StepStatus.DONE, attempt, result=codec.encode(result))
    _write(saga, entry, *((BeginPivot(),) if pivot else ()))


def failed(
    saga: Claimed,
    step: str,
    kind: str,
    *,
    attempt: int,
    error: str,
    unknown: bool = False,
    decides: bool = False,
) -> None:
    status = StepStatus.UNKNOWN if unknown else StepStatus.FAILED
    changes = (Fail(error),) if decides else ()
    entry = _entry(step, kind, status, attempt, failures=attempt, error=error)
    _write(saga, entry, *changes)


def do_locally(saga: Claimed, step: str, *, work: Callable[[], Any], pivot: bool = False) -> Any:
    changes = (BeginPivot(),) if pivot else ()
    done = _entry(step, "F", StepStatus.DONE, 1)
    entry = Entry(saga=saga, step=done, changes=changes, unless_cancelled=pivot)
    return local_step.do_locally(entry, work=work, timeout=None)


def finish(saga: Claimed, ending: Ending, *, steps: Collection[str] = ()) -> None:
    final_transaction.finish(
        saga,
        SagaOutcome(saga_id=saga.id, name=saga.name, key=saga.key, ending=ending, context={}),
        steps=steps,
    )


def _entry(
    step: str,
    kind: str,
    status: StepStatus,
    attempt: int,
    *,
    failures: int = 0,
    result: str = "",
    error: str = "",
) -> StepEntry:
    return StepEntry(
        step=step,
        kind=kind,
        status=status,
        attempt=attempt,
        failures=failures,
        started_at=timezone.now(),
        result=result,
        error=error,
    )


def _write(saga: Claimed, step: StepEntry, *changes: Change) -> None:
    (verdict,) = writing.write([Entry(saga=saga, step=step, changes=changes)])
    if not isinstance(verdict, Written):
        raise LeaseLost
