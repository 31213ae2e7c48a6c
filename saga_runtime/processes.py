"""What this project's long-running commands have in common."""

import argparse
import gc
import getpass
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from saga_runtime.commands import VisibleCommand

EXIT_SECONDS = 2.0
"""Seconds that threads may take to end, once a command has ended."""


def positive(text: str) -> int:
    """An argparse type: a whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def whoever() -> str:
    """Who runs this process; in a container, that may be a number without a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid {os.getuid()}"


def spare_the_collector() -> None:
    """For a loop over many small objects, once all is loaded: looking through what stays, again and
    again, took a third of the relay's time."""
    gc.freeze()
    gc.set_threshold(20_000)


def stop_on_signals(*, then: Callable[[], None] = lambda: None) -> threading.Event:
    """An event that SIGTERM and Ctrl-C set, calling `then` with it. Wait for it with a timeout: a
    signal that comes just before a wait begins does not end it.

    A thread sets it, not the handler. The handler interrupts the main thread anywhere, within a
    wait for that very event too, whose lock it would then wait for without end.
    """
    stop = threading.Event()
    came: SimpleQueue[int] = SimpleQueue()  # the one queue that a handler may use

    def wait_for_signal() -> None:
        came.get()
        stop.set()
        then()

    threading.Thread(target=wait_for_signal, name="signals", daemon=True).start()
    on_orphaned(lambda: came.put(signal.SIGTERM))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: came.put(number))
    return stop


def exit_within(seconds: float) -> None:
    """End the process after so many seconds, whatever still runs in it. To be called at its end:
    Python waits without limit for threads that hang in a library's call."""
    ending = sys.exc_info()[1]
    code = ending.code if isinstance(ending, SystemExit) else int(ending is not None)

    def end() -> None:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:  # whoever has read them may be gone
            os._exit(code if isinstance(code, int) else int(code is not None))

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


class ProcessCommand(VisibleCommand):
    """A command whose process ends although what it has called in threads may hang."""

    def run_from_argv(self, argv: list[str]) -> None:
        """Run it from the command line; `call_command()` leaves the process alone."""
        try:
            super().run_from_argv(argv)
        finally:
            exit_within(EXIT_SECONDS)


def on_orphaned(then: Callable[[], None]) -> None:
    """Under a supervisor, which holds the other end of standard input: call this when it is gone,
    however it ended. Otherwise nothing."""
    if not os.environ.get("SUPERVISED"):
        return

    def wait_for_end() -> None:
        while os.read(0, 1024):
            pass
        then()

    threading.Thread(target=wait_for_end, name="supervisor", daemon=True).start()


def sign_of_life(path: Path | None, *, every: float = 5.0) -> Callable[[], None]:
    """A function to call in each round of a loop: it touches the file every few seconds, so that a
    health check can tell a loop that turns from one that hangs."""
    last = 0.0

    def touch() -> None:
        nonlocal last
        if path is not None and time.monotonic() - last >= every:
            path.touch()
            last = time.monotonic()

    return touch
