import argparse
import socket
import time
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError

from brokers import Broker, await_broker, broker_from_url
from config.embedded import Embedded
from config.secret_key import make_secret_key
from config.supervised import Supervisor, parts
from config.webserver import WebServer
from orders.stock import load_sample_stock
from outbox.cli import positive, stop_on_signals
from relay.single import AlreadyRunning, only_relay
from saga_runtime.commands import VisibleCommand

LOOK_EVERY = 0.1
WAITERS = 64  # requests that may wait for `Prefer: wait` in the one process
THREADS = WAITERS + 16


class Command(VisibleCommand):
    help = "Runs everything on this machine: database, sample stock, web server, relay, consumer."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to serve (127.0.0.1)")
        parser.add_argument("--port", type=_port, default=8000, help="port to serve (8000)")
        parser.add_argument(
            "--consumers", type=positive, default=1, help="consumer processes over kafka:// (1)"
        )

    def handle(self, *, host: str, port: int, consumers: int, **_: Any) -> None:
        broker = broker_from_url(settings.SAGAZ["BROKER_URL"], **settings.BROKER_OPTIONS)
        broker.check()
        make_secret_key()
        try:
            if broker.in_process:
                self._embedded(broker, host, port)
            else:
                self._supervised(broker, host, port, consumers)
        except AlreadyRunning as error:
            raise CommandError(str(error)) from error
        self.say("Stopped.")

    def _embedded(self, broker: Broker, host: str, port: int) -> None:
        from config.wsgi import application

        settings.MAX_WAITING_REQUESTS = WAITERS
        with only_relay():
            _prepare()
            try:
                web = WebServer(host, port, application, threads=THREADS)
            except OSError as error:
                raise _taken(host, port, error) from error
            embedded = Embedded(web, broker)
            stop_on_signals(then=embedded.stop)
            self._ready(host, port)
            died = embedded.run()
        if died:
            raise CommandError(f"stopped, because this part died: {', '.join(died)}")

    def _supervised(self, broker: Broker, host: str, port: int, consumers: int) -> None:
        with only_relay():  # refuses a second `up` on one file; the relay's own process holds it
            _prepare()
        await_broker(broker, topics=settings.BROKER_TOPICS)
        _check_free(host, port)
        supervisor = Supervisor(parts(host=host, port=port, consumers=consumers), say=self.say)
        over = stop_on_signals(then=supervisor.stop)
        supervisor.start()
        while not over.is_set() and not _answers(host, port):
            time.sleep(LOOK_EVERY)
        if not over.is_set():
            self._ready(host, port)
        supervisor.join()

    def _ready(self, host: str, port: int) -> None:
        self.say(f"Ready: {_url(host, port)}")
        self.stdout.flush()


def _prepare() -> None:
    call_command("migrate", verbosity=0)
    load_sample_stock()


def _url(host: str, port: int) -> str:
    """Where to reach it from this machine."""
    host = _WILDCARDS.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((_WILDCARDS.get(host, host), port), timeout=5).close()
    except OSError:
        return False
    return True


_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared with


def _check_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise _taken(host, port, error) from error


def _taken(host: str, port: int, error: OSError) -> CommandError:
    return CommandError(
        f"cannot serve {_url(host, port)}: {error.strerror or error}; "
        'choose another port: make up ARGS="--port 8001"'
    )


def _port(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 65_535:  # noqa: PLR2004 - TCP's range
        raise argparse.ArgumentTypeError("must be 1 to 65535")
    return number
