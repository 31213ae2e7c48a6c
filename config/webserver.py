import socket
import threading
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler

from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer

POLL_SECONDS = 0.1


class _Server(ThreadedWSGIServer):
    # Django's backlog of 10 resets connections when 50 clients arrive at once.
    request_queue_size = 128
    # What is being answered is finished before the server closes.
    daemon_threads = False
    block_on_close = True


class _Handler(WSGIRequestHandler):
    timeout = 30  # seconds that an idle or stalled client may hold a thread

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Requests are not logged; what they lead to is."""


class WebServer:
    """Serves the WSGI application with a thread for each request.

    Raises:
        OSError: the address is taken or not ours.
    """

    def __init__(self, host: str, port: int, application: WSGIHandler) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._server = _Server((host, port), _Handler, ipv6=family == socket.AF_INET6)
        self._server.set_app(application)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set, then finish what is being answered."""
        watching = threading.Thread(target=self._shutdown_on, args=(stop,), name="web stop")
        watching.start()
        try:
            self._server.serve_forever(POLL_SECONDS)
        finally:
            stop.set()
            watching.join()
            self._server.server_close()

    def close(self) -> None:
        """Free the port of a server that never ran."""
        self._server.server_close()

    def _shutdown_on(self, stop: threading.Event) -> None:
        stop.wait()
        self._server.shutdown()
