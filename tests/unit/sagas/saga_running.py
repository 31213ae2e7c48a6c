"""Sagas of a test's own, registered for that test alone, and a worker that runs them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sagaz import Saga as SagaClass

from sagas.definition import discovery, registry
from sagas.definition.hooks import Hook
from sagas.definition.identity import saga_id
from sagas.definition.registry import Registry
from sagas.journal import codec
from sagas.models import ACTIVE, Saga, SagaStep
from sagas.run import attempts
from sagas.worker import executor
from sagas.worker.executor import Executor
from tests.unit.waiting import in_thread, until

Context = dict[str, Any]
Register = Callable[..., None]

CORRELATION = "trace-1"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def register(saga_registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Register:
    """Makes these saga classes the only ones there are; backoff is short."""
    saga_registry.types.clear()
    monkeypatch.setattr(attempts, "FIRST_BACKOFF", 0.001)
    monkeypatch.setattr(executor, "LONGEST_POLL", 0.05)

    def registering(*classes: type[SagaClass]) -> None:
        for saga_class in classes:
            discovery.register(saga_class)

    return registering


@pytest.fixture
def on_finish(saga_registry: Registry) -> Callable[[str, Hook], None]:
    return saga_registry.hooks.add_finish


@pytest.fixture
def on_park(saga_registry: Registry) -> Callable[[str, Hook], None]:
    return saga_registry.hooks.add_park


def begin(name: str, *, key: str = "K-1", **context: Any) -> UUID:
    """Put a saga where the inbox would."""
    found = registry.saga_type(name)
    assert found is not None
    row = Saga.objects.create(
        id=saga_id(name, key),
        name=name,
        key=key,
        version=found.version,
        definition_hash=found.definition_hash,
        input=codec.encode(context),
        correlation_id=CORRELATION,
        traceparent=TRACEPARENT,
    )
    return row.id


@contextmanager
def working(
    *, lease: float = 10.0, concurrency: int = 4, grace: float = 10.0
) -> Iterator[Executor]:
    """A worker, until the block ends."""
    worker = Executor(concurrency=concurrency, lease=timedelta(seconds=lease), grace=grace)
    with in_thread(worker.run):
        yield worker


def run_to_end(saga: UUID, *, lease: float = 10.0) -> Saga:
    """Work until the saga has ended or parked."""
    with working(lease=lease):
        until(lambda: is_ended(saga))
    return Saga.objects.get(id=saga)


def is_ended(*sagas: UUID) -> bool:
    """Whether each has ended or parked."""
    return not Saga.objects.filter(id__in=sagas, status__in=ACTIVE).exists()


def journal_of(saga: UUID) -> dict[str, tuple[str, int]]:
    """Status and attempt of each step, as `charge:F`."""
    steps = SagaStep.objects.filter(saga_id=saga)
    return {f"{s.step}:{s.kind}": (s.status, s.attempt) for s in steps}
