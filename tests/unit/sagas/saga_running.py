"""Sagas of a test's own, registered for that test alone, and a worker that runs them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

from saga_runtime.backoff import Backoff
from sagas.definition import registry
from sagas.definition.identity import saga_id
from sagas.journal import codec, writing
from sagas.journal.entries import Entry, Verdict
from sagas.models import ACTIVE, Saga, SagaAttempt, SagaStep
from sagas.run.timing import Timing
from sagas.worker.executor import Executor
from tests.unit.waiting import in_thread, until

Context = dict[str, Any]
Register = Callable[..., None]
Write = Callable[[Sequence[Entry]], list[Verdict]]

CORRELATION = "trace-1"
QUICK = Timing(
    grace=10.0,
    longest_poll=0.05,
    retry=Backoff(first=0.001, longest=30.0),
    outage=Backoff(first=0.002, longest=5.0),
)
HOUR = 3600.0
HOURS = Backoff(first=HOUR, longest=HOUR)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


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
    *,
    timing: Timing = QUICK,
    lease: float | None = None,
    grace: float | None = None,
    concurrency: int = 4,
    write: Write = writing.write,
) -> Iterator[Executor]:
    """A worker, until the block ends. `lease`, `grace`: in the place of the timing's."""
    timing = replace(
        timing,
        lease=timing.lease if lease is None else lease,
        grace=timing.grace if grace is None else grace,
    )
    worker = Executor(concurrency=concurrency, timing=timing, write=write)
    with in_thread(worker.run):
        yield worker


def run_to_end(
    saga: UUID,
    *,
    timing: Timing = QUICK,
    lease: float | None = None,
    write: Write = writing.write,
) -> Saga:
    """Work until the saga has ended or parked."""
    with working(timing=timing, lease=lease, write=write):
        until(lambda: is_ended(saga))
    return Saga.objects.get(id=saga)


def is_ended(*sagas: UUID) -> bool:
    """Whether each has ended or parked."""
    return not Saga.objects.filter(id__in=sagas, status__in=ACTIVE).exists()


def attempts_of(saga: UUID, *, of: str = "") -> list[SagaAttempt | SagaStep]:
    """Each attempt that the journal has, in the order in which they began.

    Args:
        saga: the saga.
        of: only the attempts at a step, as `charge:F`.
    """
    found: list[SagaAttempt | SagaStep] = [*SagaAttempt.objects.filter(saga_id=saga)]
    found += SagaStep.objects.filter(saga_id=saga, attempt__gt=0, resolved_by="")
    found.sort(key=lambda each: each.started_at)
    return [each for each in found if of in ("", f"{each.step}:{each.kind}")]


def history_of(saga: UUID) -> list[tuple[str, int, str]]:
    """Step, number and status of each attempt."""
    return [(f"{a.step}:{a.kind}", a.attempt, a.status) for a in attempts_of(saga)]


def journal_of(saga: UUID) -> dict[str, tuple[str, int]]:
    """Status and attempt of each step, as `charge:F`."""
    steps = SagaStep.objects.filter(saga_id=saga)
    return {f"{s.step}:{s.kind}": (s.status, s.attempt) for s in steps}
