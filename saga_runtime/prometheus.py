"""Serve a command's metrics over HTTP, in Prometheus' text format."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from django.core.management.base import CommandError
from prometheus_client import CollectorRegistry, Counter, Metric, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

COUNTERS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that makes `prometheus_client` keep a process' counters in a file there."""


def add_metrics_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--metrics-port` and `--metrics-address` to a command's arguments."""
    parser.add_argument(
        "--metrics-port", type=_port, help="serve metrics for Prometheus on this port; 0: do not"
    )
    parser.add_argument(
        "--metrics-address",
        default="127.0.0.1",
        help="the address to serve them on (default 127.0.0.1)",
    )


@contextmanager
def metrics_served(
    registry: CollectorRegistry, *, port: int | None, address: str
) -> Iterator[None]:
    """Answer `GET /metrics` in a thread until the block ends; do nothing without a port, or with 0.

    Raises:
        CommandError: the port cannot be had.
    """
    if not port:
        yield
        return
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        raise CommandError(
            f"cannot serve metrics at {address}:{port}: {error.strerror or error}; "
            "choose another --metrics-port"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class SummedCounters(Collector):
    """Sum the counters of several processes, of those that have died too.

    Args:
        counters: those to sum; a process may have others, which it would not serve by itself.
        directory: that its processes have found in COUNTERS_DIRECTORY.
    """

    def __init__(self, counters: Sequence[Counter], directory: Path) -> None:
        self._names = {metric.name for counter in counters for metric in counter.describe()}
        self._files: Collector = MultiProcessCollector(None, str(directory))  # type: ignore[no-untyped-call]

    def collect(self) -> Iterator[Metric]:
        """Yield each counter; none until a process has made its file."""
        yield from (metric for metric in self._files.collect() if metric.name in self._names)


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65_535:  # noqa: PLR2004 - TCP's range
        raise argparse.ArgumentTypeError("must be 0 to 65535")
    return number
