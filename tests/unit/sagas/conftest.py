"""Fixtures of the tests of sagas; `tests/saga_registries.py` has those that others use too."""

import pytest

from tests.unit.sagas.scripted_sagas import Script


@pytest.fixture
def script() -> Script:
    """Say what the steps of a test's saga do, and keep which were called."""
    return Script()
