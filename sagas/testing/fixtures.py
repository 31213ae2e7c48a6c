from collections.abc import Callable, Iterator
from functools import partial

import pytest

from sagas.testing.process import Worker
from sagas.testing.walk import CrashMatrix, walk
from sagas.testing.workers import Workers


@pytest.fixture
def saga_workers() -> Iterator[Workers]:
    """Worker processes on the test's database; whatever is left of them is killed at the end."""
    workers = Workers()
    yield workers
    workers.clean_up()


@pytest.fixture
def saga_worker(saga_workers: Workers) -> Callable[..., Worker]:
    """Runs a worker until the given sagas have ended or parked: `Workers.run`."""
    return saga_workers.run


@pytest.fixture
def saga_crash(saga_workers: Workers) -> Callable[..., Worker]:
    """Runs a worker until it is killed at a point: `Workers.crash`."""
    return saga_workers.crash


@pytest.fixture
def saga_hold(saga_workers: Workers) -> Callable[..., Worker]:
    """Runs a worker until it is frozen at a point: `Workers.hold`."""
    return saga_workers.hold


@pytest.fixture
def saga_crash_walk(saga_workers: Workers) -> Callable[..., CrashMatrix]:
    """Kills a worker at each point of a saga: `sagas.testing.walk.walk`."""
    return partial(walk, saga_workers)
