"""Run workers: `manage.py run_saga_consumer`."""

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from django.core.management.base import CommandError
from django.db import connection

from brokers import await_broker, broker_from_url, require_shared
from saga_runtime import project_settings
from saga_runtime.cores import usable_cores
from saga_runtime.processes import (
    is_supervised,
    oldest_sign_of_life,
    positive,
    sign_of_life,
    stop_on_signals,
    this_program,
)
from saga_runtime.prometheus import COUNTERS_DIRECTORY, metrics_served
from saga_runtime.round_trips import run
from saga_runtime.supervision import Part, Supervisor
from sagas.management.worker_command import WorkerCommand
from sagas.worker.metrics import consumer_registry, summed_registry
from sagas.worker.service import MOST_CONNECTIONS, SagaService, pool_size

READY = "consumer: ready"


class Command(WorkerCommand):
    """Run a `SagaService` until a signal: in this process, or in several that this one supervises.

    The supervisor finds a user's mistakes before it starts a process. Each process runs this
    command again, with the same arguments and `--processes 1`.
    """

    help = "Accepts saga commands from SAGAZ_BROKER_URL and runs sagas until SIGTERM or Ctrl-C."
    concurrency_help = "sagas at a time in each process (default 20)"
    alive_help = "touched while all processes work"
    _command_line: list[str] | None = None  # without the program; None under `call_command()`

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add processes, concurrency, sign of life and metrics."""
        parser.add_argument(
            "--processes",
            type=positive,
            help="consumer processes (default: one for each core that may be used; 1 on SQLite)",
        )
        super().add_arguments(parser)

    def run_from_argv(self, argv: list[str]) -> None:
        """Run the command, and keep its command line for the processes that it may start."""
        self._command_line = argv[1:]
        super().run_from_argv(argv)

    def handle(
        self,
        *,
        processes: int | None,
        concurrency: int,
        alive_file: Path | None,
        metrics_port: int | None,
        metrics_address: str,
        **_: Any,
    ) -> None:
        """Wait for the broker, then accept commands and run sagas until asked to stop.

        Raises:
            CommandError: there can be one process only; or calls of steps do not come back, so that
                the worker must be replaced; or a process has ended before it has ever worked.
        """
        count = self._count(processes)
        broker = broker_from_url(project_settings.broker_url(), **project_settings.broker_options())
        require_shared(broker)
        await_broker(broker, topics=project_settings.topics())
        connection.ensure_connection()
        service = SagaService.from_settings(
            broker, concurrency=concurrency, alive=sign_of_life(alive_file)
        )
        if count == 1:
            with metrics_served(consumer_registry(), port=metrics_port, address=metrics_address):
                self.run_service(
                    service, started="consumer: started, joining its group", ready=READY
                )
        else:  # the service has shown that the settings are right; others run
            self._say_where_connections_are_few(count)
            connection.close()
            connection.close_pool()  # type: ignore[attr-defined]  # PostgreSQL's
            with _own_directory(alive_file) as directory:
                registry = summed_registry(directory)
                parts = self._parts(count, directory, counters=bool(metrics_port))
                with metrics_served(registry, port=metrics_port, address=metrics_address):
                    self._supervise(parts, directory, alive_file)
        self.say("consumer: stopped")

    def _count(self, asked: int | None) -> int:
        """Return how many processes to run.

        Args:
            asked: by the user.

        Raises:
            CommandError: there can be one only.
        """
        if is_supervised():
            return 1  # whatever the arguments are: one of several starts none
        if why := self._why_one():
            if asked is not None and asked > 1:
                raise CommandError(f"{why}: leave --processes out")
            return 1
        return usable_cores() if asked is None else asked

    def _why_one(self) -> str:
        """Say why there can be one process only; nothing where there can be more."""
        if connection.vendor == "sqlite":
            return "SQLite writes for one process at a time, others would only wait"
        if self._command_line is None:
            return "call_command() runs the consumer in the process that calls it"
        return ""

    def _say_where_connections_are_few(self, count: int) -> None:
        """Say that the processes may open more connections than the server has."""
        if project_settings.direct_url():
            return  # they connect to a pooler, whose limits are its own
        [(allowed,)] = run("SHOW max_connections", [])
        held = pool_size(connection.settings_dict["OPTIONS"].get("pool")) or MOST_CONNECTIONS
        wanted = count * min(held + 1, MOST_CONNECTIONS)
        if wanted > int(allowed):
            self.say(
                f"consumer: {count} processes open {wanted} connections at most, and the server "
                f"allows {allowed}: raise its max_connections, or give --processes"
            )

    def _supervise(self, parts: Sequence[Part], directory: Path, alive_file: Path | None) -> None:
        """Keep the processes running, and pass their signs of life on."""
        supervisor = Supervisor([parts], say=self.say, gives_up=True)
        stop_on_signals(then=supervisor.stop)
        self.say(f"consumer: starting {len(parts)} processes")
        supervisor.start()
        signs = [_sign(directory, part.name) for part in parts]
        supervisor.join(meanwhile=oldest_sign_of_life(alive_file, signs))
        if supervisor.failure:
            raise CommandError(f"{supervisor.failure} before it was ready, see above")

    def _parts(self, count: int, directory: Path, *, counters: bool) -> list[Part]:
        """Describe the processes: this command again, where the last of equal options counts."""
        again = [*this_program(), *(self._command_line or []), "--processes", "1"]
        names = [f"consumer-{number + 1}" for number in range(count)]
        return [
            Part(
                name,
                [*again, "--metrics-port", "0", "--alive-file", str(_sign(directory, name))],
                ready=READY,
                environment={COUNTERS_DIRECTORY: str(directory)} if counters else {},
                logs_apart=True,
            )
            for name in names
        ]


@contextmanager
def _own_directory(alive_file: Path | None) -> Iterator[Path]:
    """Make the directory in which the processes leave what this one reads, for a `with` block.

    Raises:
        CommandError: no directory can be made, or the file of `--alive-file` cannot be written.
    """
    if alive_file is not None and not _is_writable(alive_file):
        raise CommandError(f"cannot write {alive_file}: choose another --alive-file")
    try:
        made = TemporaryDirectory(prefix="run_saga_consumer-")
    except OSError as error:
        raise CommandError(
            f"several processes need a directory for temporary files: {error}; "
            "set TMPDIR, or use --processes 1"
        ) from error
    with made as directory:
        yield Path(directory)


def _is_writable(file: Path) -> bool:
    return os.access(file if file.exists() else file.parent, os.W_OK)


def _sign(directory: Path, name: str) -> Path:
    """Name the file that a process touches while it works."""
    return directory / f"{name}.alive"
