import inspect
from collections.abc import Callable
from typing import Any


def is_external(function: Callable[..., Any]) -> bool:
    """`async def` steps are external; `def` steps are local: exactly once, in a transaction."""
    return inspect.iscoroutinefunction(function)
