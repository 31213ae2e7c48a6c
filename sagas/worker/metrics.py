"""Tell Prometheus about a consumer and the unfinished sagas."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from django.db import Error, connection
from django.db.models import Count
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from saga_runtime.prometheus import SummedCounters
from sagas.inbox.counters import ACCEPTED, OUT_OF_ORDER, REFUSED
from sagas.models import UNFINISHED, Saga

COUNT_EVERY = 60.0  # seconds; it reads every unfinished saga
_COUNTERS = (ACCEPTED, REFUSED, OUT_OF_ORDER)


def consumer_registry() -> CollectorRegistry:
    """Return the metrics of a worker's process."""
    registry = CollectorRegistry()
    for counter in _COUNTERS:
        registry.register(counter)
    registry.register(SagasByStatus())
    return registry


def summed_registry(directory: Path) -> CollectorRegistry:
    """Return the metrics of several workers' processes as one: the sagas are counted once.

    Args:
        directory: where the processes keep their counters.
    """
    registry = CollectorRegistry()
    registry.register(SummedCounters(_COUNTERS, directory))
    registry.register(SagasByStatus())
    return registry


class SagasByStatus(Collector):
    """Count unfinished sagas by status; where a count fails, there is no metric until the next."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = clock()
        self._counts: dict[str, int] | None = None

    def describe(self) -> list[Metric]:
        """Describe nothing: otherwise registering would query the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return the last counts; count anew where these are older than a minute."""
        if (now := self._clock()) >= self._due:
            # Before the count, which may fail: a database in trouble is not asked at each scrape.
            self._due = now + COUNT_EVERY
            self._counts = _count()
        if self._counts is None:
            return
        gauge = GaugeMetricFamily("sagas", "Unfinished sagas by status", labels=["status"])
        for status in UNFINISHED:
            gauge.add_metric([status.value], self._counts.get(status.value, 0))
        yield gauge


def _count() -> dict[str, int] | None:
    """None where the database does not answer."""
    try:
        groups = Saga.objects.unfinished().order_by().values_list("status")
        return dict(groups.annotate(Count("id")))
    except Error:
        return None
    finally:
        connection.close()
