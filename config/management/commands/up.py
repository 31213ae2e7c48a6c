import argparse
import signal
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from brokers import broker_from_url
from config.embedded import Embedded
from config.secret_key import make_secret_key
from config.webserver import WebServer
from orders.stock import load_sample_stock
from relay.single import AlreadyRunning, only_relay


class Command(BaseCommand):
    help = "Runs everything on this machine: database, sample stock, web server, relay, consumer."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to serve (127.0.0.1)")
        parser.add_argument("--port", type=_port, default=8000, help="port to serve (8000)")

    def handle(self, *, host: str, port: int, **_: Any) -> None:
        broker = broker_from_url(settings.SAGAZ["BROKER_URL"])
        make_secret_key()
        try:
            with only_relay():
                call_command("migrate", verbosity=0)
                load_sample_stock()
                died = self._run(Embedded(self._web(host, port), broker), host, port)
        except AlreadyRunning as error:
            raise CommandError(str(error)) from error
        if died:
            raise CommandError(f"stopped, because this part died: {', '.join(died)}")
        self.stdout.write("Stopped.")

    def _web(self, host: str, port: int) -> WebServer:
        from config.wsgi import application

        try:
            return WebServer(host, port, application)
        except OSError as error:
            raise CommandError(
                f"cannot serve http://{host}:{port}/: {error.strerror or error}; "
                'choose another port: make up ARGS="--port 8001"'
            ) from error

    def _run(self, embedded: Embedded, host: str, port: int) -> list[str]:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: embedded.stop())
        self.stdout.write(f"Ready: http://{host}:{port}/")
        self.stdout.flush()
        return embedded.run()


def _port(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 65_535:  # noqa: PLR2004 - TCP's range
        raise argparse.ArgumentTypeError("must be 1 to 65535")
    return number
