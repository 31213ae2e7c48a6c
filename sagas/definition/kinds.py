import inspect
from collections.abc import Callable
from functools import cache
from typing import Any


def is_external(function: Callable[..., Any]) -> bool:
    """`async def` steps are external; `def` steps are local: exactly once, in a transaction."""
    return _is_coroutine_function(getattr(function, "__func__", function))


_is_coroutine_function = cache(inspect.iscoroutinefunction)
