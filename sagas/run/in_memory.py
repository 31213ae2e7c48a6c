"""Run a saga in memory: for unit tests of steps, without a database, journal or worker."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sagaz import Saga as SagaClass
from sagaz.core.decorators import ExecutionEngine

from sagas.definition.current_step import current_key

Context = dict[str, Any]


async def run_in_memory(saga: SagaClass, context: Mapping[str, Any]) -> Context:
    """Run a saga's steps by sagaz's engine alone: each once, none retried, nothing kept.

    `sagas.idempotency_key()` is `test:{step}:F` or `test:{step}:C`. A `def` step runs as written,
    without a transaction.

    Args:
        saga: an instance, to be run once.
        context: the first context.

    Returns:
        The final context, with sagaz's own keys.

    Raises:
        Exception: from a step; the done steps are undone by then.
    """
    for step in saga.get_steps():
        step.forward_fn = _under_key(step.forward_fn, f"test:{step.step_id}:F")
        if step.compensation_fn is not None:
            step.compensation_fn = _under_key(step.compensation_fn, f"test:{step.step_id}:C")
    return await ExecutionEngine(saga).run(dict(context), None)


def _under_key(function: Callable[[Context], Any], key: str) -> Callable[[Context], Awaitable[Any]]:
    # Imported late: a project imports `sagas.testing` before Django has its models.
    from sagas.definition.steps import is_external

    async def call(context: Context) -> Any:
        token = current_key.set(key)
        try:
            return await function(context) if is_external(function) else function(context)
        finally:
            current_key.reset(token)

    return call
