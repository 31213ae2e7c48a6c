"""Retry services that PostgreSQL has ended to break a deadlock.

Services lock keys and rows in any order; of two transactions in a deadlock PostgreSQL ends one.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from django.db import OperationalError, connection

from saga_runtime.database_errors import sqlstate

P = ParamSpec("P")
R = TypeVar("R")

DEADLOCK_DETECTED = "40P01"
ATTEMPTS = 4


def retry_deadlocks(service: Callable[P, R]) -> Callable[P, R]:
    """Run a service again, up to four times in all, when PostgreSQL ended the service's deadlock.

    For services with a transaction of their own; inside a caller's transaction the error passes
    through.
    """

    @functools.wraps(service)
    def retrying(*args: P.args, **kwargs: P.kwargs) -> R:
        for _ in range(ATTEMPTS - 1):
            try:
                return service(*args, **kwargs)
            except OperationalError as error:
                if connection.in_atomic_block or not _is_deadlock(error):
                    raise
        return service(*args, **kwargs)

    return retrying


def _is_deadlock(error: OperationalError) -> bool:
    return sqlstate(error) == DEADLOCK_DETECTED
