"""Run a worker without a broker: `manage.py run_saga_worker`."""

import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.db import connection

from saga_runtime.processes import ProcessCommand, positive, sign_of_life, stop_on_signals
from saga_runtime.prometheus import add_metrics_arguments, metrics_served
from sagas.errors import WorkerUnwell
from sagas.worker.metrics import consumer_registry
from sagas.worker.service import SagaService


class Command(ProcessCommand):
    """Run a `SagaService` that receives no commands, until a signal."""

    help = (
        "Runs the sagas in the database, without a broker, until SIGTERM or Ctrl-C: those that "
        "sagas.start() and run_saga_sync() have begun, and whatever a lost worker left."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add concurrency, sign of life and metrics."""
        parser.add_argument(
            "--concurrency", type=positive, default=20, help="sagas at a time (default 20)"
        )
        parser.add_argument("--alive-file", type=Path, help="touched while the worker works")
        add_metrics_arguments(parser)

    def handle(
        self,
        *,
        concurrency: int,
        alive_file: Path | None,
        metrics_port: int | None,
        metrics_address: str,
        **_: Any,
    ) -> None:
        """Run sagas until asked to stop.

        Raises:
            CommandError: calls of steps do not come back, so that the worker must be replaced.
        """
        connection.ensure_connection()
        service = SagaService.from_settings(
            None, concurrency=concurrency, alive=sign_of_life(alive_file)
        )
        with metrics_served(consumer_registry(), port=metrics_port, address=metrics_address):
            stop = stop_on_signals()
            self.say("worker: started")
            try:
                service.run(stop, ready=lambda: self.say("worker: ready"))
            except WorkerUnwell as error:
                raise CommandError(str(error)) from error
        self.say("worker: stopped")
