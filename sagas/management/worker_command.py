"""What the commands share that run sagas until a signal."""

import argparse
from pathlib import Path

from django.core.management.base import CommandError

from saga_runtime.processes import ProcessCommand, positive, stop_on_signals
from saga_runtime.prometheus import add_metrics_arguments
from sagas.errors import WorkerUnwell
from sagas.worker.service import SagaService


class WorkerCommand(ProcessCommand):
    """Base of a command that runs a `SagaService`.

    Attributes:
        concurrency_help: of `--concurrency`.
        alive_help: of `--alive-file`.
    """

    concurrency_help = "sagas at a time (default 20)"
    alive_help = "touched while the worker works"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add concurrency, sign of life and metrics."""
        parser.add_argument("--concurrency", type=positive, default=20, help=self.concurrency_help)
        parser.add_argument("--alive-file", type=Path, help=self.alive_help)
        add_metrics_arguments(parser)

    def run_service(self, service: SagaService, *, started: str, ready: str) -> None:
        """Run a service in this process until a signal.

        Args:
            service: not running yet.
            started: the line to print at the begin.
            ready: the line to print once sagas are claimed, and commands received.

        Raises:
            CommandError: calls of steps do not come back, so that the worker must be replaced.
        """
        stop = stop_on_signals()
        self.say(started)
        try:
            service.run(stop, ready=lambda: self.say(ready))
        except WorkerUnwell as error:
            raise CommandError(str(error)) from error
