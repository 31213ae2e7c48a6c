"""Gather the figures of a relay and of the outbox for Prometheus, at each request."""

from collections.abc import Iterator

from django.db import Error, connection
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from outbox.models import ParkedMessage
from outbox.queries import estimated_count, oldest_age, table_bytes
from relay.loop import Relay


def relay_registry(relay: Relay) -> CollectorRegistry:
    """Return a registry of the relay's figures and the outbox's."""
    registry = CollectorRegistry()
    registry.register(_OfTheRelay(relay))
    registry.register(_OfTheOutbox())
    return registry


class _OfTheRelay(Collector):
    """Collect the relay's own figures."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def collect(self) -> Iterator[Metric]:
        """Yield a metric for each figure."""
        relay = self._relay
        yield CounterMetricFamily(
            "outbox_relay_published",
            "Messages that the broker has acknowledged to this relay",
            relay.published,
        )
        yield CounterMetricFamily(
            "outbox_relay_parked", "Messages that this relay has parked", relay.parked
        )
        yield SummaryMetricFamily(
            "outbox_relay_cycle_seconds",
            "Cycles that moved something: read, publish, delete",
            count_value=relay.cycles,
            sum_value=relay.cycle_seconds,
        )
        yield GaugeMetricFamily("outbox_relay_lanes", "Lanes that it holds", relay.lanes_held)
        yield GaugeMetricFamily(
            "outbox_relay_in_flight",
            "Messages handed to the broker and not yet deleted",
            relay.in_flight,
        )
        yield self._outages()

    def _outages(self) -> Metric:
        outages = CounterMetricFamily(
            "outbox_relay_outages", "Times that a server did not answer", labels=["server"]
        )
        for server, count in self._relay.outages.items():
            outages.add_metric([server], count)
        return outages


class _OfTheOutbox(Collector):
    """Collect the outbox's figures; none while the database does not answer."""

    def describe(self) -> list[Metric]:
        """Return nothing, or else registering would ask the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield a metric for each figure, and leave no connection behind."""
        try:
            yield from self._gauges()
        except Error:
            return
        # Each request has a thread of its own, whose connection Django would never close.
        finally:
            connection.close()

    def _gauges(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "outbox_waiting_messages",
            "Messages in the outbox; on PostgreSQL about",
            estimated_count(),
        )
        yield GaugeMetricFamily(
            "outbox_oldest_seconds",
            "How long the oldest message has waited",
            oldest_age().total_seconds(),
        )
        yield GaugeMetricFamily(
            "outbox_parked_messages", "Messages that are parked", ParkedMessage.objects.count()
        )
        size = table_bytes()
        if size is not None:
            yield GaugeMetricFamily(
                "outbox_table_bytes", "What the outbox takes, with what is not yet freed", size
            )
