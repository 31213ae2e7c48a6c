"""Run a worker: `manage.py run_saga_consumer`."""

import argparse
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import connection

from brokers import await_broker, broker_from_url, require_shared
from saga_runtime.processes import ProcessCommand, positive, sign_of_life, stop_on_signals
from saga_runtime.prometheus import add_metrics_arguments, metrics_served
from sagas.errors import WorkerUnwell
from sagas.worker.metrics import consumer_registry
from sagas.worker.service import SagaService


class Command(ProcessCommand):
    """Wire a broker to a `SagaService`, and run the service until a signal."""

    help = "Accepts saga commands from SAGAZ_BROKER_URL and runs sagas until SIGTERM or Ctrl-C."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add concurrency, sign of life and metrics."""
        parser.add_argument(
            "--concurrency", type=positive, default=20, help="sagas at a time (default 20)"
        )
        parser.add_argument("--alive-file", type=Path, help="touched while the consumer works")
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
        """Wait for the broker, then accept commands and run sagas until asked to stop.

        Raises:
            CommandError: calls of steps do not come back, so that the worker must be replaced.
        """
        broker = broker_from_url(settings.SAGAZ["BROKER_URL"], **settings.BROKER_OPTIONS)
        require_shared(broker)
        await_broker(broker, topics=settings.BROKER_TOPICS)
        connection.ensure_connection()
        service = SagaService.from_settings(
            broker, concurrency=concurrency, alive=sign_of_life(alive_file)
        )
        with metrics_served(consumer_registry(), port=metrics_port, address=metrics_address):
            stop = stop_on_signals()
            self.say("consumer: started, joining its group")
            try:
                service.run(stop, ready=lambda: self.say("consumer: ready"))
            except WorkerUnwell as error:
                raise CommandError(str(error)) from error
        self.say("consumer: stopped")
