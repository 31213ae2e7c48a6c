"""Run web server, relay and consumer as threads of one process, over memory://.

A part that dies takes the others down with it: half a service is worse than none.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from django.db import connection

from brokers import Broker
from config.serving.webserver import WebServer
from relay.assembly import assemble_relay
from relay.listening import woken_by_commits
from saga_runtime import project_settings
from saga_runtime.logs import get_logger
from saga_runtime.signs_of_life import SignsOfLife
from sagas.errors import WorkerUnwell
from sagas.journal import claims
from sagas.worker.service import SagaService

logger = get_logger(__name__)

CONCURRENCY = 20  # sagas at a time
POLL_SECONDS = 0.2


@dataclass(slots=True)
class _Part:
    """Hold a part of the service and its thread.

    Attributes:
        run: works until the event is set; calls its second argument once it is ready.
        stop: ends `run`.
        works: set once the part is ready.
    """

    name: str
    run: Callable[[threading.Event, Callable[[], None]], None]
    stop: threading.Event = field(default_factory=threading.Event)
    works: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None


def _relay(broker: Broker, stop: threading.Event, ready: Callable[[], None]) -> None:
    """Publish messages."""
    with woken_by_commits() as woken:
        source = project_settings.source()
        assemble_relay(broker, source=source, woken=woken, ready=ready).run(stop)


def _web(web: WebServer, stop: threading.Event, ready: Callable[[], None]) -> None:
    """Serve requests."""
    ready()  # it is bound: from now on whoever comes is answered
    web.run(stop)


def _consumer(service: SagaService, stop: threading.Event, ready: Callable[[], None]) -> None:
    """Consume commands and run sagas."""
    service.run(stop, ready=ready)


class Embedded:
    """Run the parts until `stop()`, or until one of them dies.

    Args:
        web: a bound server, so that a taken port is known before anything starts.
        broker: an in-process broker.
    """

    def __init__(self, web: WebServer, broker: Broker) -> None:
        self._web = web
        self._stop_requested = threading.Event()
        self._died: list[str] = []
        service = SagaService.from_settings(broker, concurrency=CONCURRENCY)
        # In the order in which they stop: no new orders, then nothing new for the consumer.
        self._parts = [
            _Part("web server", partial(_web, web)),
            _Part("relay", partial(_relay, broker)),
            _Part("consumer", partial(_consumer, service)),
        ]

    def stop(self) -> None:
        """Request the end of `run()`. Not to be called from a signal handler."""
        self._stop_requested.set()

    def run(self, *, ready: Callable[[], None], say: Callable[[str], None]) -> list[str]:
        """Run the parts, and stop them in their order.

        Args:
            ready: called once, as soon as every part works.
            say: prints one line, such as which part is waited for.

        Returns:
            The names of the parts that died; empty after `stop()`.
        """
        # SQLite's file belongs to this process alone: no other can be at work on claimed sagas.
        interrupted = claims.release_all() if connection.vendor == "sqlite" else 0
        if interrupted:
            logger.warning("taking up %d saga(s) that were interrupted", interrupted)
        for part in self._parts:
            part.thread = threading.Thread(target=self._run_part, args=(part,), name=part.name)
            part.thread.start()
        self._await_work(ready, SignsOfLife(say))
        while not self._stop_requested.wait(POLL_SECONDS):
            pass  # a wait without a timeout might not notice a signal
        for part in self._parts:
            part.stop.set()
            if part.thread is not None:
                part.thread.join()
        return self._died

    def _await_work(self, ready: Callable[[], None], signs: SignsOfLife) -> None:
        """Call `ready` once every part works, or return when the end is requested first."""
        while missing := [part.name for part in self._parts if not part.works.is_set()]:
            signs.waiting_for(missing)
            if self._stop_requested.wait(POLL_SECONDS):
                return
        ready()

    def _run_part(self, part: _Part) -> None:
        """Run a part in its thread; its death requests the end of all."""
        try:
            part.run(part.stop, part.works.set)
        except WorkerUnwell as error:
            logger.error("the %s ends: %s", part.name, error)  # noqa: TRY400 - no fault of ours
            self._died.append(part.name)
        except Exception:
            logger.exception("the %s died", part.name)
            self._died.append(part.name)
        else:
            if not part.stop.is_set():
                self._died.append(part.name)
        if self._died:
            self._stop_requested.set()
