"""Run the whole service on one machine."""

import argparse
import socket
import threading
from http.client import HTTPConnection, HTTPException
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection

from brokers import Broker, await_broker, broker_from_url
from config.serving.embedded import Embedded
from config.serving.secret_key import make_secret_key
from config.serving.supervised import parts
from config.serving.webserver import WebServer
from orders.sample_stock import load_sample_stock
from relay.single import AlreadyRunning, only_relay
from saga_runtime import project_settings
from saga_runtime.processes import ProcessCommand, positive, stop_on_signals
from saga_runtime.signs_of_life import SignsOfLife
from saga_runtime.supervision import Supervisor

NAME = "manage.py up"
LOOK_EVERY = 0.1
ANSWER_SECONDS = 1.0
WAITERS = 64  # requests that may wait for `Prefer: wait` in the one process
THREADS = WAITERS + 16


class Command(ProcessCommand):
    """Prepare the database, then run all parts as threads or, over Kafka, as processes."""

    help = "Runs everything on this machine: database, sample stock, web server, relay, consumer."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the address and the number of consumers."""
        parser.add_argument("--host", default="127.0.0.1", help="address to serve (127.0.0.1)")
        parser.add_argument("--port", type=_port, default=8000, help="port to serve (8000)")
        parser.add_argument(
            "--consumers", type=positive, default=1, help="consumer processes over kafka:// (1)"
        )

    def handle(self, *, host: str, port: int, consumers: int, **_: Any) -> None:
        """Run until asked to stop; threads or processes, as the broker allows."""
        broker = broker_from_url(project_settings.broker_url(), **project_settings.broker_options())
        await_broker(broker, topics=())
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
        """Run the parts as threads of this process."""
        from config.wsgi import application

        settings.MAX_WAITING_REQUESTS = WAITERS
        with only_relay(NAME):
            self._prepare()
            try:
                web = WebServer(host, port, application, threads=THREADS)
            except OSError as error:
                raise _taken(host, port, error) from error
            embedded = Embedded(web, broker)
            stop_on_signals(then=embedded.stop)
            self.say("Starting web server, relay and consumer")
            died = embedded.run(ready=lambda: self._ready(host, port), say=self.say)
        if died:
            raise CommandError(f"stopped, because this part died: {', '.join(died)}")

    def _supervised(self, broker: Broker, host: str, port: int, consumers: int) -> None:
        """Run the parts as processes."""
        with only_relay(NAME):  # no second `up` on one file; later the relay holds it
            self._prepare()
        self.say(f"Looking for the topics at {broker.name}")
        await_broker(broker, topics=project_settings.topics())
        _check_free(host, port)
        supervisor = Supervisor(parts(host=host, port=port, consumers=consumers), say=self.say)
        over = stop_on_signals(then=supervisor.stop)
        self.say("Starting web, relay and consumer")
        supervisor.start()
        if self._all_work(supervisor, over, host, port):
            self._ready(host, port)
        supervisor.join()

    def _all_work(
        self, supervisor: Supervisor, over: threading.Event, host: str, port: int
    ) -> bool:
        """Wait until every part works, and say now and then which part is waited for.

        Returns:
            False where the command was asked to stop first.
        """
        signs = SignsOfLife(self.say)
        web = False
        while not over.is_set():
            if not web and (web := _answers(host, port)):
                self.say("web: ready")
            missing = [*([] if web else ["web"]), *supervisor.unready()]
            if not missing:
                return True
            signs.waiting_for(missing)
            over.wait(LOOK_EVERY)
        return False

    def _ready(self, host: str, port: int) -> None:
        self.say(f"Ready: {_url(host, port)}")
        self.stdout.flush()

    def _prepare(self) -> None:
        self.say(f"Preparing the database {connection.settings_dict['NAME']}")
        call_command("migrate", verbosity=0)
        load_sample_stock()


def _url(host: str, port: int) -> str:
    """Build the address under which this machine reaches the service."""
    host = _WILDCARDS.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _answers(host: str, port: int) -> bool:
    """Tell whether a request is answered: a port takes connections before the server answers."""
    client = HTTPConnection(_WILDCARDS.get(host, host), port, timeout=ANSWER_SECONDS)
    try:
        client.request("GET", "/health/")
        client.getresponse().read()
    except (OSError, HTTPException):
        return False
    finally:
        client.close()
    return True


_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared with


def _check_free(host: str, port: int) -> None:
    """Look whether the address can be served.

    Raises:
        CommandError: the address is taken, or not of this machine.
    """
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
