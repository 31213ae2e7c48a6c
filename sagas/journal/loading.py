"""Load claimed sagas: rows of sagas and of their steps become `Claimed`.

Rows may be damaged, or written by a newer version. No damage to a saga keeps further sagas from
being loaded: a damaged saga is marked as `unreadable`, and parks.
"""

from collections.abc import Collection
from datetime import UTC, datetime
from math import inf
from typing import Any
from uuid import UUID

from django.db.models import TextField
from django.db.models.functions import Cast

from saga_runtime.logs import get_logger
from sagas.errors import UnreadableValue
from sagas.journal import codec, sql
from sagas.journal.records import Claimed, StepRecord
from sagas.journal.sql import Rows
from sagas.models import SagaStep, StepKind, StepStatus

logger = get_logger(__name__)

_COLUMNS = (
    "id", "name", "key", "version", "definition_hash", "epoch", "input", "failure",
    "cancel_reason", "cancelled", "past_pivot", "takeovers", "deadline", "correlation_id",
    "traceparent", "created_at",
)  # fmt: skip

# PostgreSQL keeps moments, such as `infinity`, that Python does not have; and the seconds that are
# left go by the server's clock, not by this machine's.
_AS_SECONDS = {
    "created_at": "extract(epoch FROM created_at)::float8",
    "deadline": "extract(epoch FROM deadline)::float8"
    " - extract(epoch FROM statement_timestamp())::float8",
}
# On SQLite, Django's converters would end the whole statement for one text that is no moment.
_AS_TEXT = {"created_at": "created_at || ''", "deadline": "deadline || ''"}


def returned_columns() -> list[str]:
    """Return SQL for the columns of sagas_saga read by `load_claimed`."""
    special = _AS_SECONDS if sql.is_postgresql() else _AS_TEXT
    return [special.get(column, column) for column in _COLUMNS]


def load_claimed(taken: Rows, *, worker: str, began: float) -> list[Claimed]:
    """Load a worker's claimed sagas, the oldest first, with their steps.

    Args:
        taken: rows of sagas_saga, with the columns of `returned_columns`.
        worker: the worker's name.
        began: when the claim began, by `time.monotonic()`: deadlines have come nearer since.
    """
    rows = [dict(zip(_COLUMNS, row, strict=True)) for row in taken]
    rows = [row for row in rows if _has_id(row)]
    # A saga at its first epoch has no steps: most claims need no second query.
    taken_up = [row["id"] for row in rows if row["epoch"] > 1]
    steps = _steps_of(taken_up) if taken_up else {}
    rows.sort(key=lambda row: str(row.pop("created_at")))
    return [_claimed(row, worker, steps.get(row["id"], []), began) for row in rows]


def record_of(row: SagaStep) -> StepRecord:
    """Return the record of a step's row.

    Raises:
        UnreadableValue: the row is damaged, or a newer version has written the row.
    """
    counts = (row.attempt, row.failures)
    return _record(
        (row.step, row.kind, row.status, *counts, row.result, row.error, row.finished_at)
    )


def _has_id(row: dict[str, Any]) -> bool:
    """Make the row's id a UUID, and tell whether the id is readable: SQLite keeps any text.

    A row without a readable id cannot be written either: the row is reported, and left alone.
    """
    try:
        row["id"] = sql.uuid_of(row["id"])
    except ValueError:
        logger.error("a row of sagas_saga has the id %r, which is no UUID: mend it", row["id"])  # noqa: TRY400 - its traceback says nothing
        return False
    return True


def _claimed(row: dict[str, Any], worker: str, steps: Rows, began: float) -> Claimed:
    encoded, deadline = row.pop("input"), row.pop("deadline")
    for flag in ("cancelled", "past_pivot"):
        row[flag] = bool(row[flag])
    claimed = Claimed(**row, worker=worker, context={}, deadline_at=None)
    try:
        claimed.context = _dict(encoded, "its input")
        left = _seconds_until(deadline)
        # From before the statement that has measured them: rather too early than too late.
        claimed.deadline_at = None if left is None else began + left
        claimed.steps = {(values[0], values[1]): _record(values) for values in steps}
    except UnreadableValue as error:
        claimed.unreadable = (
            f"{error}. Nothing of it was run now: mend that row, or deploy the version that wrote "
            f"it, then `manage.py sagas retry {claimed.id} --why …`"
        )
        claimed.context = {}
    return claimed


def _seconds_until(deadline: Any) -> float | None:
    """Return the remaining seconds; None without a deadline.

    Args:
        deadline: on PostgreSQL the seconds left, on SQLite the text of the moment.
    """
    if deadline is None or isinstance(deadline, float):
        return None if deadline == inf else deadline
    try:
        return (sql.moment_of(deadline) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError) as error:
        raise UnreadableValue(f"its deadline {deadline!r:.80} is no moment") from error


def _dict(encoded: Any, what: str) -> dict[str, Any]:
    try:
        value = codec.decode(encoded)
    except UnreadableValue as error:
        raise UnreadableValue(f"{what} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise UnreadableValue(f"{what} cannot be read: it is a {type(value).__name__}, not a dict")
    return value


def _steps_of(ids: Collection[UUID]) -> dict[UUID, Rows]:
    """Return the steps of each saga, in the form for `_record`."""
    columns = ("saga_id", "step", "kind", "status", "attempt", "failures", "result", "error")
    # As text: for one that is no moment, Django would raise for all of them.
    rows = SagaStep.objects.filter(saga_id__in=ids).annotate(at=Cast("finished_at", TextField()))
    steps: dict[UUID, Rows] = {}
    for saga, *row in rows.values_list(*columns, "at"):
        steps.setdefault(saga, []).append(tuple(row))
    return steps


def _record(values: tuple[Any, ...]) -> StepRecord:
    step, kind, status, attempt, failures, result, error, finished_at = values
    if status not in StepStatus.values or kind not in StepKind.values:
        raise UnreadableValue(f"its step {step} is {status!r}, {kind!r}, which are not known here")
    value = _dict(result, f"the result of its step {step} ({kind})") if result else None
    return StepRecord(status, attempt, failures, value, error, _moment(finished_at))


def _moment(value: Any) -> datetime | None:
    try:
        return None if value is None else sql.moment_of(value)
    except (ValueError, TypeError) as error:
        raise UnreadableValue(f"{value!r:.80} is no moment") from error
