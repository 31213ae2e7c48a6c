"""Ports for servers of tests: none is given twice, by whichever worker of whichever run.

A port that the system chooses, and that is let go again, may be taken by somebody else before the
server listens. So these lie below the range from which the system takes the ports of clients, and
all processes of this user count them in one file.
"""

import fcntl
import os
import socket
import tempfile
from pathlib import Path

FIRST, LAST = 15_000, 32_000
_COUNTER = Path(tempfile.gettempdir()) / f"django-saga-outbox-ports-{os.getuid()}"


def free_port() -> int:
    """Return a port on which nobody listens, and which no other caller gets for a long while."""
    with _COUNTER.open("a+") as counter:
        fcntl.flock(counter, fcntl.LOCK_EX)
        counter.seek(0)
        last = int(counter.read() or FIRST)
        port = next(port for port in _after(last) if _is_free(port))
        counter.truncate(0)
        counter.write(str(port))
    return port


def _after(last: int) -> list[int]:
    """List all ports, those behind the last one first."""
    return [*range(last + 1, LAST), *range(FIRST, last + 1)]


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
