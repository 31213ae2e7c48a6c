"""One relay a SQLite file. The operating system frees the lock however the process ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connection


class AlreadyRunning(Exception):  # noqa: N818 - states the fact
    """Another relay works on this SQLite file."""


@contextmanager
def only_relay() -> Iterator[None]:
    """Hold the right to be this SQLite file's relay; on PostgreSQL, nothing to hold.

    Raises:
        AlreadyRunning: another process holds it.
    """
    path = lock_file()
    if path is None:
        yield
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode() or "?"
            raise AlreadyRunning(
                f"another relay (process {holder}) works on {connection.settings_dict['NAME']}: "
                "stop it first, or name another file in DATABASE_URL"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def lock_file() -> Path | None:
    if connection.vendor != "sqlite":
        return None
    # One lock however the file was reached.
    return Path(f"{os.path.realpath(connection.settings_dict['NAME'])}.relay-lock")
