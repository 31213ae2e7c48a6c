"""Registries of a test's own, for sagas, hooks and cancel rules that it declares."""

from collections.abc import Callable, Iterator

import pytest
from sagaz import Saga as SagaClass

from sagas.definition import discovery, registry
from sagas.definition.hooks import Hook
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


@pytest.fixture
def register(saga_registry: Registry) -> Callable[..., None]:
    """Make these saga classes the only ones that there are."""
    saga_registry.types.clear()

    def registering(*classes: type[SagaClass]) -> None:
        for saga_class in classes:
            discovery.register(saga_class)

    return registering


@pytest.fixture
def on_finish(saga_registry: Registry) -> Callable[[str, Hook], None]:
    """Hang a function onto the end of a saga, for this test."""
    return saga_registry.hooks.add_finish


@pytest.fixture
def on_park(saga_registry: Registry) -> Callable[[str, Hook], None]:
    """Hang a function onto a saga that parks, for this test."""
    return saga_registry.hooks.add_park
