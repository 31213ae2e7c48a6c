"""How many requests of a process may wait at a time: the others must be able to answer."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from django.conf import settings
from django.db import connection


@contextmanager
def waiting_room() -> Iterator[bool]:
    """Whether there is a place to wait; it is kept until the block ends."""
    places = _places()
    has_place = places.acquire(blocking=False)
    try:
        yield has_place
    finally:
        if has_place:
            places.release()


def release_connection() -> None:
    """Give the connection back to its pool: those that wait must not keep others from theirs. A
    file has no pool, and there it would be opened anew each time."""
    if connection.vendor == "postgresql" and not connection.in_atomic_block:
        connection.close()


@cache
def _places() -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(settings.MAX_WAITING_REQUESTS)
