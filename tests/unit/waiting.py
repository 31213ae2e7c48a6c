"""Running things in threads, waiting for what they do, and reading what they have logged."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.db import connections

TIMEOUT = 100.0  # seconds, for what never comes


def until(condition: Callable[[], object], *, timeout: float = TIMEOUT) -> None:
    """Wait until it holds; fail when it never does."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.005)


@contextmanager
def in_thread(run: Callable[[threading.Event], object]) -> Iterator[threading.Event]:
    """Run it in a thread until the block ends, then stop it; what it raised is raised here."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            run(stop)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(TIMEOUT * 2)
    assert not thread.is_alive(), "it does not stop"
    if errors:
        raise errors[0]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The texts that were logged as errors."""
    return [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
