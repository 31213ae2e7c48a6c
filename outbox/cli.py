"""What this project's long-running commands have in common."""

import argparse
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path


def positive(text: str) -> int:
    """An argparse type: a whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and Ctrl-C set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


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
