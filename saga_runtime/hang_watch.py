"""Tells a call in a thread that hangs from one that takes its time."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, ParamSpec, TypeVar

from django.db import connections

P = ParamSpec("P")
R = TypeVar("R")


class Watch:
    """Counts the seconds in which a call makes no statement, from its begin in the thread on.

    A statement takes none of them: what that may take is the database's to limit.

    Args:
        seconds: after so many the call is taken for one that hangs.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._still_since: float | None = None

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it, with an eye on the statements of this thread's connections."""
        with ExitStack() as stack:
            for connection in connections.all():
                stack.enter_context(connection.execute_wrapper(self._execute))
            self._still_since = self._clock()
            return function(*args, **kwargs)

    def left(self) -> float:
        """Return the seconds after which to ask again; 0 or less where the call hangs."""
        since = self._still_since
        return self._seconds if since is None else self._seconds - (self._clock() - since)

    def _execute(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: Any, context: Any
    ) -> Any:
        self._still_since = None
        try:
            return execute(sql, params, many, context)
        finally:
            self._still_since = self._clock()
