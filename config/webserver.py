"""The web server of `manage.py up`: a thread for each request, a connection for each request."""

import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.core.handlers.wsgi import WSGIHandler
from django.core.servers import basehttp

from config.problems import problem

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
LINGER_SECONDS = 2.0
MAX_REQUEST_LINE = 65_536


class _Answer(basehttp.ServerHandler):
    def cleanup_headers(self) -> None:
        super().cleanup_headers()
        self.headers["Connection"] = "close"  # type: ignore[attr-defined] # not in its stub

    def close(self) -> None:
        """Leave out Django's reading of the whole body into memory: the server lingers instead."""
        super(basehttp.ServerHandler, self).close()


class _Handler(basehttp.WSGIRequestHandler):
    timeout = 30  # seconds that an idle or stalled client may hold a thread
    server: "_Server"
    connection: socket.socket  # type: ignore[assignment] # the stub of the base class is wrong

    def handle(self) -> None:
        with self.server.awaiting(self.connection):
            arrived = self.rfile.peek(1)  # type: ignore[attr-defined] # a BufferedReader
        if arrived:
            self.handle_one_request()

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(MAX_REQUEST_LINE + 1)
        if len(self.raw_requestline) > MAX_REQUEST_LINE:
            self.requestline = self.request_version = self.command = ""
            self.send_error(414)
        elif self.parse_request():
            answer = _Answer(self.rfile, self.wfile, self.get_stderr(), self.get_environ())
            answer.request_handler = self  # type: ignore[attr-defined] # not in its stub
            answer.run(self.server.application)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """A request that is no HTTP never reaches Django; it gets its problem here."""
        response = problem(code, message or explain or "")
        self.request_version = self.protocol_version  # where it could not be read, headers too
        self.send_response(code)
        self.send_header("Content-Type", response["Content-Type"])
        self.send_header("Content-Length", str(len(response.content)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Requests are not logged; what they lead to is."""


class _Server(basehttp.ThreadedWSGIServer):
    # Django's backlog of 10 resets connections when 50 clients arrive at once.
    request_queue_size = 128
    application: WSGIHandler
    # What is being answered is finished before the server closes.
    daemon_threads = False
    block_on_close = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._lock = threading.Lock()
        self._awaiting: set[socket.socket] = set()
        self._closing = False
        super().__init__(*args, **kwargs)

    @contextmanager
    def awaiting(self, connection: socket.socket) -> Iterator[None]:
        """Wait for a client's first byte; closing ends the wait (browsers connect ahead)."""
        with self._lock:
            self._awaiting.add(connection)
            if self._closing:
                _hang_up(connection)
        try:
            yield
        finally:
            with self._lock:
                self._awaiting.remove(connection)

    def server_close(self) -> None:
        with self._lock:
            self._closing = True
            for connection in self._awaiting:
                _hang_up(connection)
        super().server_close()

    def shutdown_request(self, request: Any) -> None:
        """Read what the client still sends, for a while: closing on it would reset the connection
        before the client has read the answer."""
        deadline = time.monotonic() + LINGER_SECONDS
        with suppress(OSError):
            request.shutdown(socket.SHUT_WR)
            while (remaining := deadline - time.monotonic()) > 0:
                request.settimeout(remaining)
                if not request.recv(65_536):
                    break
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base's
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            logger.info("a client went away or stalled: %s", error)
        else:
            logger.error("a connection failed", exc_info=error)


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RD)


class WebServer:
    """Serves the WSGI application with a thread for each request.

    Raises:
        OSError: the address is taken or not ours.
    """

    def __init__(self, host: str, port: int, application: WSGIHandler) -> None:
        self._server = _Server((host, port), _Handler, ipv6=":" in host)
        self._server.application = application

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set, then finish what is being answered. If serving fails, `stop`
        is left alone, so that the caller can tell."""
        over = threading.Event()
        watching = threading.Thread(target=self._watch, args=(stop, over), name="web stop")
        watching.start()
        try:
            self._server.serve_forever(POLL_SECONDS)
        finally:
            over.set()
            watching.join()
            self._server.server_close()

    def close(self) -> None:
        """Free the port of a server that never ran."""
        self._server.server_close()

    def _watch(self, stop: threading.Event, over: threading.Event) -> None:
        while not stop.wait(POLL_SECONDS) and not over.is_set():
            pass
        self._server.shutdown()
