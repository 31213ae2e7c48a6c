"""Fixtures of the tests of sagas; `tests/saga_registries.py` has those that others use too."""

import pytest
from django.conf import settings

from tests.unit.sagas.scripted_sagas import Script


@pytest.fixture
def script() -> Script:
    """Say what the steps of a test's saga do, and keep which were called."""
    return Script()


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each local step, and the end, commit by itself."""
    monkeypatch.setattr(settings, "SAGA_COMMIT_TOGETHER", False, raising=False)
