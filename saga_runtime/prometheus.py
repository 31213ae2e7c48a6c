"""Serve a command's metrics over HTTP, in Prometheus' text format."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError
from prometheus_client import CollectorRegistry, start_http_server


def add_metrics_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--metrics-port` and `--metrics-address` to a command's arguments."""
    parser.add_argument(
        "--metrics-port", type=_port, help="serve metrics for Prometheus on this port"
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
    """Answer `GET /metrics` in a thread until the block ends; without a port, do nothing.

    Raises:
        CommandError: the port cannot be had.
    """
    if port is None:
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


def _port(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 65_535:  # noqa: PLR2004 - TCP's range
        raise argparse.ArgumentTypeError("must be 1 to 65535")
    return number
