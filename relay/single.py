"""Allow a SQLite file one relay, by a lock that any end of the process frees.

`manage.py up` holds the lock too, over `memory://` as long as the command runs: then `up` is a
relay itself.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connection

from saga_runtime.text import visible


class AlreadyRunning(Exception):  # noqa: N818 - states the fact
    """Raised when another process moves the messages of a SQLite file; names the command."""


@contextmanager
def only_relay(command: str) -> Iterator[None]:
    """Hold the right to be the SQLite file's relay while the block runs; on PostgreSQL do nothing.

    Args:
        command: the command that was called, to name to users who are refused meanwhile.

    Raises:
        AlreadyRunning: the right is taken.
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
        # The name stands in the file, which is never removed: of two files of one path each could
        # be locked by another process.
        os.ftruncate(descriptor, 0)
        os.write(descriptor, _ourselves(command).encode())
        yield
    finally:
        os.close(descriptor)


def _ourselves(command: str) -> str:
    """Name the process for the user to stop: `manage.py up`, if started by that command."""
    if os.environ.get("SUPERVISED"):
        return f"{os.getppid()} manage.py up"
    return f"{os.getpid()} {command}"


def _holder(descriptor: int) -> str:
    process, _, command = os.read(descriptor, 200).decode(errors="replace").partition(" ")
    return f"`{visible(command) or 'run_outbox_relay'}` (process {visible(process) or '?'})"


def lock_file() -> Path | None:
    """Return the path of the lock file, or None on PostgreSQL."""
    if connection.vendor != "sqlite":
        return None
    # The real path: one lock by whatever name the file was reached.
    return Path(f"{os.path.realpath(connection.settings_dict['NAME'])}.relay-lock")
