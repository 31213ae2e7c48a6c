import argparse
import signal
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from brokers import broker_from_url
from relay.relay import Relay
from relay.single import AlreadyRunning, only_relay


class Command(BaseCommand):
    help = "Publishes the outbox to SAGAZ_BROKER_URL until SIGTERM or Ctrl-C."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--drain", action="store_true", help="empty the outbox, then exit")
        parser.add_argument(
            "--batch-size", type=_positive, default=500, help="rows at a time (default 500)"
        )

    def handle(self, *, drain: bool, batch_size: int, **_: Any) -> None:
        broker = broker_from_url(settings.SAGAZ["BROKER_URL"])
        if broker.in_process:
            raise CommandError(
                f"{broker.name} lives inside one process, so this relay would reach nobody: "
                "use `manage.py up`, or set SAGAZ_BROKER_URL=kafka://host:port"
            )
        broker.check()
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        try:
            with only_relay():
                self._relay(
                    Relay(broker, source=settings.OUTBOX_SOURCE, batch_size=batch_size),
                    stop,
                    drain=drain,
                )
        except AlreadyRunning as error:
            raise CommandError(str(error)) from error

    def _relay(self, relay: Relay, stop: threading.Event, *, drain: bool) -> None:
        if drain:
            count = relay.drain(stop)
            self.stdout.write(f"published {count} message(s)")
            return
        self.stdout.write("relay: ready")
        relay.run(stop)
        self.stdout.write(f"relay: stopped, published {relay.published} message(s)")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
