"""Limit how many requests of a process wait at a time: the rest must be able to answer."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from django.conf import settings
from django.db import connection


@contextmanager
def waiting_room() -> Iterator[bool]:
    """Take a place to wait, until the block ends.

    Yields:
        Whether a place was free.
    """
    places = _places()
    has_place = places.acquire(blocking=False)
    try:
        yield has_place
    finally:
        if has_place:
            places.release()


def release_connection() -> None:
    """Give the connection back to its pool: waiting requests must not keep it from working ones.

    SQLite has no pool; there the file would be opened anew each time.
    """
    if connection.vendor == "postgresql" and not connection.in_atomic_block:
        connection.close()


@cache
def _places() -> threading.BoundedSemaphore:
    """Make the places of this process."""
    return threading.BoundedSemaphore(settings.MAX_WAITING_REQUESTS)
