"""Put together the context that a saga has come to, from its journal."""

from collections.abc import Iterable
from typing import Any

from sagas.errors import UnreadableValue
from sagas.journal import codec
from sagas.models import Saga, SagaStep, StepKind, StepStatus


def final_context(
    saga: Saga, steps: Iterable[SagaStep] | None = None, *, is_lenient: bool = False
) -> dict[str, Any]:
    """Put together a saga's context: its first one, and what steps and compensations made of it.

    The results of steps are merged in the order in which the steps finished, then those of
    compensations likewise. A saga that has not ended has a context as far as it has come.

    Args:
        saga: the saga's row.
        steps: the saga's rows, where the caller has them already.
        is_lenient: leave out what cannot be read, as for a saga that is parked for it.

    Returns:
        The context, with the `saga_id` that sagaz puts into it.

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
