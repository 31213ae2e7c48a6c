"""Wake relays after commits: one NOTIFY for all commits of a moment, on a connection of its own.

Inside the business transaction NOTIFY would take a lock that all commits share, and 32 clients
would do a third of their work. Relays poll all the same: a failure here costs some time, and shows
in the log alone.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections

from outbox import direct
from saga_runtime import project_settings
from saga_runtime.logs import get_logger
from saga_runtime.text import one_line_error

logger = get_logger(__name__)

_NOTIFY = f"NOTIFY {direct.CHANNEL}"
FAILURES = (psycopg.Error, OSError)

Connect = Callable[[str], "psycopg.Connection[tuple[object, ...]]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Hold a notifier's pauses, in seconds.

    Attributes:
        debounce: between two notifications.
        retry_after: after a failure.
        idle: after which a connection with nothing to send is given back.
    """

    debounce: float = 0.01
    retry_after: float = 1.0
    idle: float = 30.0


def wake() -> None:
    """Tell relays to look at the outbox, after a commit."""
    if not _is_enabled():
        return
    if _in_tests():
        _notify_in_transaction()
    else:
        notifier.ask()


def wake_with_commit() -> None:
    """Tell relays with the commit itself, where the process may end right afterwards."""
    if _is_enabled():
        _notify_in_transaction()


def _notify_in_transaction() -> None:
    """Send NOTIFY on the transaction's own connection."""
    with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        cursor.execute(_NOTIFY)


def _in_tests() -> bool:
    """Tell whether a test runner of Django or pytest has set this process up.

    A test runner drops its database at the end, which PostgreSQL refuses while a thread is
    connected to it. So in tests NOTIFY goes out on the connection that has committed, after the
    commit.
    """
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")  # noqa: SLF001


def _is_enabled() -> bool:
    vendor = connections[DEFAULT_DB_ALIAS].vendor
    return vendor == "postgresql" and project_settings.wakes_up()


class Notifier:
    """Send this process's notifications from a thread.

    The thread starts at the first `ask()`, in each process by itself.

    Args:
        connect: opens a connection, given its name.
        timing: the thread's pauses.
    """

    def __init__(self, *, connect: Connect = direct.connect, timing: Timing | None = None) -> None:
        self._connect = connect
        self._timing = timing or Timing()
        self._asked = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def begin_anew(self) -> None:
        """Forget the thread and the locks of the parent, in a process that was forked."""
        self._asked = threading.Event()
        self._starting = threading.Lock()
        self._thread = None

    def ask(self) -> None:
        """Ask for a notification soon. Never blocks."""
        if self._thread is None:
            self._start()
        if not self._asked.is_set():
            self._asked.set()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="outbox wake-up", daemon=True)
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        connection = None
        is_failing = False
        while True:
            if not self._asked.wait(None if connection is None else self._timing.idle):
                _close(connection)
                connection = None
                continue
            self._asked.clear()
            is_new = connection is None
            try:
                connection = connection or self._connect("outbox wake-up")
                _notify(connection)
            except FAILURES as error:
                _close(connection)
                connection = None
                if not is_new:  # the server may have been restarted: connect again at once
                    self._asked.set()
                    continue
                if not is_failing:
                    logger.warning("relays are not woken, they poll: %s", one_line_error(error))
                is_failing = True
                time.sleep(self._timing.retry_after)
            else:
                is_failing = False
                time.sleep(self._timing.debounce)


def _close(connection: "psycopg.Connection[tuple[object, ...]] | None") -> None:
    if connection is not None:
        connection.close()


def _notify(connection: "psycopg.Connection[tuple[object, ...]]") -> None:
    """Send NOTIFY by libpq itself: a cursor would cost several times as much per request."""
    result = connection.pgconn.exec_(_NOTIFY.encode())
    if result.status != psycopg.pq.ExecStatus.COMMAND_OK:
        raise psycopg.OperationalError(connection.pgconn.get_error_message())


notifier = Notifier()
os.register_at_fork(after_in_child=notifier.begin_anew)
