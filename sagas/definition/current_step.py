"""Tell a running step its idempotency key, and let it call blocking functions."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from saga_runtime.allowance import Allowance
from saga_runtime.database_threads import Threads

P = ParamSpec("P")
R = TypeVar("R")

current_key: ContextVar[str] = ContextVar("idempotency_key")
current_place: ContextVar[str] = ContextVar("place")
"""What runs here, in words for a person: `a saga` (steps, hooks and listeners) or `a trigger`."""
current_allowance: ContextVar[Allowance] = ContextVar("allowance", default=Allowance(None))  # noqa: B039 - without a limit, it keeps nothing
current_threads: ContextVar[Threads] = ContextVar("threads")


def idempotency_key() -> str:
    """Return the running step's key, `{saga id}:{step}:{F or C}`: the same for each attempt.

    Raises:
        RuntimeError: no step is running.
    """
    if not (key := current_key.get("")):
        raise RuntimeError("idempotency_key() is for use inside a saga's step")
    return key


def forward_key() -> str:
    """Return, in a compensation, the idempotency key of the step to undo.

    Raises:
        RuntimeError: no step is running.
    """
    return f"{idempotency_key().rpartition(':')[0]}:F"


async def call_in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a blocking function, such as a provider's client or the ORM, from an `async def` step.

    Args:
        function: the function, which runs in a thread.
        *args: the function's arguments.
        **kwargs: the function's keyword arguments.

    Returns:
        What the function returns; what it raises is raised.
    """
    threads = current_threads.get(None)
    # Without a worker, as in a unit test of a step: there is no pool, and no timeout to spare.
    if threads is None:
        return await asyncio.to_thread(function, *args, **kwargs)
    return await threads.run_for(current_allowance.get(), function, *args, **kwargs)
