import argparse
import signal
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from brokers import broker_from_url
from sagas.service import SagaService


class Command(BaseCommand):
    help = "Accepts saga commands from SAGAZ_BROKER_URL and runs sagas until SIGTERM or Ctrl-C."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--concurrency", type=_positive, default=20, help="sagas at a time (default 20)"
        )

    def handle(self, *, concurrency: int, **_: Any) -> None:
        broker = broker_from_url(settings.SAGAZ["BROKER_URL"])
        if broker.in_process:
            raise CommandError(
                f"{broker.name} lives inside one process, so this consumer would hear nobody: "
                "use `manage.py up`, or set SAGAZ_BROKER_URL=kafka://host:port"
            )
        broker.check()
        broker.ensure_topics(settings.SAGA_TOPICS)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        self.stdout.write("consumer: ready")
        SagaService.from_settings(broker, concurrency=concurrency).run(stop)
        self.stdout.write("consumer: stopped")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
