"""What all workers of a run share: a server of each kind, and a migrated database to copy.

The first test that asks has it made. It lives in the process that outlives all workers (the
controller of pytest-xdist, or the only process there is), which also ends it: a worker may end
before the others. Workers ask through files in a directory of the run.

A pytest plugin: `pytest_plugins = ["tests.shared"]`.
"""

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

START_TIMEOUT = 300.0  # seconds, below pytest's own for a test
_PAUSE = 0.05  # seconds between two looks into the directory

Shared = Callable[["Things"], AbstractContextManager[str]]


class NotHereError(Exception):
    """This machine cannot make it; the text says what it would need."""


class Things(Protocol):
    """Whom a test asks, in whichever process it runs."""

    def get(self, name: str, make: Shared) -> str:
        """Return the text under this name, such as a server's URL; the first call has it made.

        Args:
            name: of the thing in this run.
            make: a function of a module, which gives the text, and ends the thing afterwards.

        Raises:
            NotHereError: this machine cannot make it.
        """


class Kept:
    """What lives in this process, until it is closed."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # one thing may need another
        self._made: dict[str, str] = {}
        self._living = ExitStack()

    def get(self, name: str, make: Shared) -> str:
        with self._lock:
            if name not in self._made:
                self._made[name] = self._living.enter_context(make(self))
            return self._made[name]

    def close(self) -> None:
        with self._lock:
            self._living.close()


class Asked:
    """What lives in the controller: asked for by a file, and answered by another.

    Args:
        directory: where the files are.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, name: str, make: Shared) -> str:
        answer = self._directory / f"{name}.answer"
        if not answer.exists():
            write(self._directory / f"{name}.question", [make.__module__, make.__name__])
        deadline = time.monotonic() + START_TIMEOUT
        while not answer.exists():
            if time.monotonic() > deadline:
                pytest.fail(f"{name} was not started within {START_TIMEOUT} s", pytrace=False)
            time.sleep(_PAUSE)
        found = json.loads(answer.read_text())
        if "missing" in found:
            raise NotHereError(found["missing"])
        if "error" in found:
            pytest.fail(found["error"], pytrace=False)
        return str(found["text"])


class Clerk:
    """Answers the workers in the controller, in a thread of its own.

    Args:
        kept: what is made in this process.
    """

    def __init__(self, kept: Kept) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="tests-shared-"))
        self._kept = kept
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(START_TIMEOUT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _run(self) -> None:
        while not self._stopping.wait(_PAUSE):
            for question in self.directory.glob("*.question"):
                answer = question.with_suffix(".answer")
                if not answer.exists():
                    write(answer, self._answer(question))

    def _answer(self, question: Path) -> dict[str, str]:
        module, function = json.loads(question.read_text())
        try:
            make = getattr(__import__(module, fromlist=[function]), function)
            return {"text": self._kept.get(question.stem, make)}
        except NotHereError as error:
            return {"missing": str(error)}
        except BaseException as error:  # noqa: BLE001 - the worker that waits tells it
            return {"error": f"{type(error).__name__}: {error}"}


_THINGS = pytest.StashKey[Things]()
_CLERK = pytest.StashKey[Clerk]()


def things(config: pytest.Config) -> Things:
    """Return whom to ask in this process."""
    return config.stash[_THINGS]


def write(path: Path, content: Any) -> None:
    """Write a file that is there as a whole, or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(content, file)
    Path(file.name).rename(path)


def pytest_configure(config: pytest.Config) -> None:
    """Ask the controller, where this is a worker of pytest-xdist."""
    given: dict[str, str] | None = getattr(config, "workerinput", None)
    config.stash[_THINGS] = Asked(Path(given["shared"])) if given else Kept()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a new worker, from the controller, where to ask."""
    kept = things(node.config)
    assert isinstance(kept, Kept)
    if _CLERK not in node.config.stash:
        node.config.stash[_CLERK] = Clerk(kept)
    node.workerinput["shared"] = str(node.config.stash[_CLERK].directory)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End all that was made in this process."""
    if clerk := config.stash.get(_CLERK, None):
        clerk.stop()
    if isinstance(kept := config.stash.get(_THINGS, None), Kept):
        kept.close()
