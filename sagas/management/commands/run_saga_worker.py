"""Run a worker without a broker: `manage.py run_saga_worker`."""

from pathlib import Path
from typing import Any

from django.db import connection

from saga_runtime.processes import sign_of_life
from saga_runtime.prometheus import metrics_served
from sagas.management.worker_command import WorkerCommand
from sagas.worker.metrics import consumer_registry
from sagas.worker.service import SagaService


class Command(WorkerCommand):
    """Run a `SagaService` that receives no commands, until a signal."""

    help = (
        "Runs the sagas in the database, without a broker, until SIGTERM or Ctrl-C: those that "
        "sagas.start() and run_saga_sync() have begun, and whatever a lost worker left."
    )

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
            self.run_service(service, started="worker: started", ready="worker: ready")
        self.say("worker: stopped")
