"""Listen for the outbox's wake-ups: on PostgreSQL, by a separate connection and thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
from django.db import connection

from outbox import direct
from relay.timing import POSTGRESQL_TIMING, Timing
from relay.wake_ups import WakeUps
from saga_runtime import project_settings
from saga_runtime.logs import get_logger
from saga_runtime.outage import Outage

logger = get_logger(__name__)

Connect = Callable[[str], "psycopg.Connection[tuple[object, ...]]"]


@contextmanager
def woken_by_commits(
    *, connect: Connect = direct.connect, timing: Timing = POSTGRESQL_TIMING
) -> Iterator[WakeUps]:
    """Set an event whenever something has been committed to the outbox, while the block runs.

    Args:
        connect: opens a connection of the given name, to listen on.
        timing: how long to pause between attempts to connect.

    Yields:
        The event, never set on SQLite, nor without OUTBOX_WAKE_UP.
    """
    woken, over = WakeUps(), threading.Event()
    if connection.vendor != "postgresql" or not project_settings.wakes_up():
        yield woken
        return
    listening = threading.Thread(
        target=_listen_until, args=(woken, over, connect, timing), name="wake-ups"
    )
    listening.start()
    try:
        yield woken
    finally:
        over.set()
        listening.join()


def _listen_until(woken: WakeUps, over: threading.Event, connect: Connect, timing: Timing) -> None:
    try:
        _listen(woken, over, connect, timing)
    finally:
        woken.are_heard = False  # whatever has ended it: the relay has to poll


def _listen(woken: WakeUps, over: threading.Event, connect: Connect, timing: Timing) -> None:
    """Listen until `over` is set; during an outage the relay polls."""
    outage = Outage("the database's wake-up", logger=logger, backoff=timing.outage)
    while not over.is_set():
        try:
            with connect("outbox relay, listening") as listener:
                listener.execute(f"LISTEN {direct.CHANNEL}")
                outage.over()
                # For what was committed before LISTEN, and told nobody here.
                woken.are_heard = True
                woken.set()
                # With a timeout, or the end of the block would wait for the next commit.
                while not over.is_set():
                    for _ in listener.notifies(timeout=timing.wake_up_check, stop_after=1):
                        woken.set()
        except (psycopg.Error, OSError) as error:
            woken.are_heard = False
            over.wait(outage.failed(error))
