"""Tell a hanging call in a thread from a slow call."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

P = ParamSpec("P")
R = TypeVar("R")


class Watch:
    """Count the seconds without a statement in a call, from the begin in the thread on.

    A statement's time is not counted: limits of statements are up to the database.

    Args:
        seconds: the limit, after which a call counts as hanging.

    Attributes:
        step: what the call does now, for people; empty where the call does one thing only.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._still_since: float | None = None
        self.step = ""

    def begin_part(self, step: str, seconds: float) -> None:
        """Count anew, for the next part of the call. To be called in the call's thread.

        Args:
            step: the part, for people.
            seconds: the part's own limit.
        """
        self.step, self._seconds = step, seconds
        self._still_since = self._clock()

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function, and watch the statements of this thread's connections."""
        with ExitStack() as stack:
            for connection in connections.all():
                stack.enter_context(connection.execute_wrapper(self._execute))
            self._still_since = self._clock()
            current_watch.set(self)  # in the call's own context, which ends with the call
            return function(*args, **kwargs)

    def left(self) -> float:
        """Return the seconds until the next look; 0 or less where the call hangs."""
        since = self._still_since
        return self._seconds if since is None else self._seconds - (self._clock() - since)

    def _execute(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: Any, context: Any
    ) -> Any:
        with self.statement():
            return execute(sql, params, many, context)

    @contextmanager
    def statement(self) -> Iterator[None]:
        """Leave out the time of the block, which waits for the database."""
        self._still_since = None
        try:
            yield
        finally:
            self._still_since = self._clock()

    @classmethod
    def is_alone_on(cls, connection: BaseDatabaseWrapper) -> bool:
        """Tell whether nobody but a watch wraps the statements of a connection's cursors."""
        return all(
            isinstance(getattr(each, "__self__", None), cls) for each in connection.execute_wrappers
        )


current_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)
"""The watch over the running call, if any."""
