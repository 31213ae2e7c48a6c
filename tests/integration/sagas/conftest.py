"""Fixtures of the tests of sagas whose workers are processes."""

import pytest

from sagas.testing import saga_crash, saga_crash_walk, saga_hold, saga_worker, saga_workers

__all__ = ["saga_crash", "saga_crash_walk", "saga_hold", "saga_worker", "saga_workers"]


@pytest.fixture(autouse=True)
def _no_wake_up(no_wake_up: None) -> None:
    """What enqueues wakes no relay."""
