"""One relay a SQLite file. The operating system frees the lock however the process ends.

`manage.py up` holds it too, over `memory://` for as long as it runs: it is a relay itself.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connection

from saga_runtime.text import visible


class AlreadyRunning(Exception):  # noqa: N818 - states the fact
    """Another process moves the messages of this SQLite file; the text names its command."""


@contextmanager
def only_relay(command: str) -> Iterator[None]:
    """Hold the right to be this SQLite file's relay; on PostgreSQL, nothing to hold.

    Args:
        command: what the user has called, for whoever is refused meanwhile.

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
            raise AlreadyRunning(
                f"{_holder(descriptor)} works on {connection.settings_dict['NAME']} already: "
                "stop it first, or name another file in DATABASE_URL"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, _ourselves(command).encode())
        yield
    finally:
        os.close(descriptor)


def _ourselves(command: str) -> str:
    """Under `manage.py up` that is what the user has called, and can stop."""
    if os.environ.get("SUPERVISED"):
        return f"{os.getppid()} manage.py up"
    return f"{os.getpid()} {command}"


def _holder(descriptor: int) -> str:
    process, _, command = os.read(descriptor, 200).decode(errors="replace").partition(" ")
    return f"`{visible(command) or 'run_outbox_relay'}` (process {visible(process) or '?'})"


def lock_file() -> Path | None:
    if connection.vendor != "sqlite":
        return None
    # One lock however the file was reached.
    return Path(f"{os.path.realpath(connection.settings_dict['NAME'])}.relay-lock")
