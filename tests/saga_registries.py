"""Registries of a test's own, for sagas, hooks and cancel rules that it declares."""

from collections.abc import Iterator

import pytest

from sagas.definition import registry
from sagas.definition.registry import Registry


@pytest.fixture
def saga_registry() -> Iterator[Registry]:
    """A copy of what the apps declare, in use until the test ends; a test may change it."""
    with registry.using(registry.current().copy()) as own:
        yield own


@pytest.fixture
def empty_registry() -> Iterator[Registry]:
    """A registry in which nothing is declared, in use until the test ends."""
    with registry.using(Registry()) as own:
        yield own
