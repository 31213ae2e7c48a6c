"""Provide the pytest fixtures of `sagas.testing`."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from sagas.testing.process import Worker
from sagas.testing.walk import CrashMatrix, walk
from sagas.testing.workers import Workers


@pytest.fixture
def saga_workers() -> Iterator[Workers]:
    """Start worker processes on the test's database; those left at the end are killed."""
    workers = Workers()
    yield workers
    workers.clean_up()


@pytest.fixture
def saga_worker(saga_workers: Workers) -> Callable[..., Worker]:
    """Run a worker until given sagas have ended or parked: `Workers.run`."""
    return saga_workers.run


@pytest.fixture
def saga_crash(saga_workers: Workers) -> Callable[..., Worker]:
    """Run a worker that is killed at a point: `Workers.crash`."""
    return saga_workers.crash


@pytest.fixture
def saga_hold(saga_workers: Workers) -> Callable[..., Worker]:
    """Run a worker that is frozen at a point: `Workers.hold`."""
    return saga_workers.hold


@pytest.fixture
def saga_crash_walk(saga_workers: Workers) -> Callable[..., CrashMatrix]:
    """Kill a worker at each point of a saga: `sagas.testing.walk.walk`."""
    return partial(walk, saga_workers)
