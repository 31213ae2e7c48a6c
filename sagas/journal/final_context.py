"""Compute a saga's final context from the journal."""

from collections.abc import Iterable
from typing import Any

from sagas.errors import UnreadableValue
from sagas.journal import codec
from sagas.models import Saga, SagaStep, StepKind, StepStatus


def final_context(
    saga: Saga, steps: Iterable[SagaStep] | None = None, *, is_lenient: bool = False
) -> dict[str, Any]:
    """Compute a saga's context: the first context, with the results of steps and compensations.

    The results of steps are merged in the order of the steps' ends, then the results of
    compensations likewise. A running saga has a context of the steps so far.

    Args:
        saga: the saga's row.
        steps: the rows of the saga's steps, where the caller has loaded them already.
        is_lenient: leave out unreadable values, as for a saga parked because of such a value.

    Returns:
        The context, with sagaz's `saga_id`.

    Raises:
        UnreadableValue: some part cannot be read, unless `is_lenient`.
    """
    rows = saga.steps.all() if steps is None else steps
    settled = [row for row in rows if row.result and row.status in _WITH_RESULT]
    context: dict[str, Any] = {}
    texts = [saga.input, *(row.result for row in sorted(settled, key=_finishing_order))]
    for n, text in enumerate(texts):
        try:
            context.update(codec.decode(text) or {})
        except (UnreadableValue, TypeError, ValueError) as error:
            if not is_lenient:
                raise UnreadableValue(f"a value of {saga} cannot be read: {error}") from error
        if n == 0:
            context["saga_id"] = str(saga.id)
    return context


_WITH_RESULT = (StepStatus.DONE, StepStatus.SKIPPED)


def _finishing_order(row: SagaStep) -> tuple[bool, Any, int]:
    return row.kind == StepKind.COMPENSATION, row.finished_at or row.started_at, row.pk
