"""What a consumer tells Prometheus."""

import time
from collections.abc import Callable, Iterator

from django.db import DatabaseError, connection
from django.db.models import Count
from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from sagas.models import Saga, SagaStatus

COUNT_EVERY = 60.0  # seconds; it reads every saga that there has ever been

ACCEPTED = Counter(
    "sagas_inbox_accepted", "Messages that the inbox has accepted, each once", registry=None
)
REFUSED = Counter("sagas_inbox_refused", "Messages that could not become a command", registry=None)
OUT_OF_ORDER = Counter(
    "sagas_inbox_out_of_order",
    "Messages accepted after a later one of their key",
    registry=None,
)


def consumer_registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    for counter in (ACCEPTED, REFUSED, OUT_OF_ORDER):
        registry.register(counter)
    registry.register(SagasByStatus())
    return registry


class SagasByStatus(Collector):
    """Left out while the database does not answer."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = clock()
        self._counts: dict[str, int] = {}

    def describe(self) -> list[Metric]:
        """Nothing: or else registering would ask the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        try:
            self._count()
        except DatabaseError:
            return
        finally:
            connection.close()
        gauge = GaugeMetricFamily("sagas", "Sagas by status", labels=["status"])
        for status in SagaStatus.values:
            gauge.add_metric([status], self._counts.get(status, 0))
        yield gauge

    def _count(self) -> None:
        if (now := self._clock()) < self._due:
            return
        rows = Saga.objects.order_by().values_list("status").annotate(Count("id"))
        self._counts = dict(rows)
        self._due = now + COUNT_EVERY
