"""Start, watch and end the processes of long-running commands."""

import argparse
import gc
import getpass
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from saga_runtime.commands import VisibleCommand

EXIT_SECONDS = 2.0
"""Seconds that threads may take to end, once a command has ended."""


def positive(text: str) -> int:
    """Parse a whole number from 1 on, as an argparse type."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def whoever() -> str:
    """Name the user of this process; in a container, perhaps a number without a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid {os.getuid()}"


def spare_the_collector() -> None:
    """Let the garbage collector pass over all loaded modules, and run less often.

    For a loop over many small objects: collections through every loaded module took a third of the
    relay's time.
    """
    gc.freeze()
    gc.set_threshold(20_000)


def stop_on_signals(*, then: Callable[[], None] = lambda: None) -> threading.Event:
    """Return an event for SIGTERM and Ctrl-C.

    Wait for the event with a timeout: a signal just before the begin of a wait does not end the
    wait.

    A thread sets the event, not the signal's handler. The handler interrupts the main thread
    anywhere, also within a wait for the same event; the handler would then wait without end for the
    event's lock.

    Args:
        then: called once the event is set, in that thread.
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
    """End the process after so many seconds, whatever still runs.

    To be called at a process's end: Python waits without limit for threads that hang in a library's
    call.
    """
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
    """Base of commands whose process ends although calls in threads may hang."""

    def run_from_argv(self, argv: list[str]) -> None:
        """Run the command, and end the process; `call_command()` leaves the process alone."""
        try:
            super().run_from_argv(argv)
        finally:
            exit_within(EXIT_SECONDS)


def this_program() -> list[str]:
    """Return the command line of this Python program, up to its arguments.

    Such as `python -X dev manage.py`, or `python -m django`.
    """
    arguments = len(sys.argv) - 1
    return [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - arguments]]


def is_supervised() -> bool:
    """Tell whether a supervisor of this project has started this process."""
    return bool(os.environ.get("SUPERVISED"))


def on_orphaned(then: Callable[[], None]) -> None:
    """Call `then` when the supervisor of this process is gone, however it ended.

    A supervisor holds the other end of standard input and sets SUPERVISED; without SUPERVISED
    nothing happens.
    """
    if not is_supervised():
        return

    def wait_for_end() -> None:
        while os.read(0, 1024):
            pass
        then()

    threading.Thread(target=wait_for_end, name="supervisor", daemon=True).start()


def sign_of_life(path: Path | None, *, every: float = 5.0) -> Callable[[], None]:
    """Return a function for each round of a loop; the function touches a file every few seconds.

    By the file's time a health check can tell a turning loop from a hanging loop.

    Args:
        path: the file; None for no file.
        every: seconds between two touches.
    """
    last = 0.0

    def touch() -> None:
        nonlocal last
        if path is not None and time.monotonic() - last >= every:
            path.touch()
            last = time.monotonic()

    return touch


def oldest_sign_of_life(
    path: Path | None, signs: Sequence[Path], *, every: float = 1.0
) -> Callable[[], None]:
    """Return a function for each round of a loop, which passes the signs of several processes on.

    The file gets the time of the oldest sign: it grows old when one of the processes hangs, or is
    not started again. There is no file until each process has given a sign.

    Args:
        path: the file; None for no file.
        signs: the files of the processes.
        every: seconds between two looks at them.
    """
    last = -math.inf

    def pass_on() -> None:
        nonlocal last
        if path is None or time.monotonic() - last < every:
            return
        last = time.monotonic()
        # Whatever cannot be read or written: the file grows old, which is what it is there for.
        with suppress(OSError):
            oldest = min(sign.stat().st_mtime_ns for sign in signs)
            if not path.exists():
                path.touch()
            os.utime(path, ns=(oldest, oldest))

    return pass_on
