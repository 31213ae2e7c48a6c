"""Serve HTTP on waitress: one loop reads requests, threads answer them.

A connection costs a socket and the bytes of its request so far. A thread is taken when a request
has arrived as a whole, and freed when its answer has been made; slow and idle clients hold none.
The server runs alone under `manage.py up`, and in each of gunicorn's workers.
"""

import resource
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer, UnixWSGIServer
from waitress.task import ThreadedTaskDispatcher

from config.serving.connections import Connection, Limits

BACKLOG = 2048
LOOP_SECONDS = 0.2
TEND_SECONDS = 1
STOP_SECONDS = 35.0  # over the longest `Prefer: wait`
MAX_HEADER_BYTES = 65_536
BUFFERED_BYTES = 65_536
"""Bytes of a body kept in memory; the rest goes to a temporary file."""
_OTHER_FILES = 512  # sockets and files of the process that are no client's connection
_PROBE = "/health/"


class _AnsweringThreads(ThreadedTaskDispatcher):
    """Answer in threads, with an extra one for answers without a database: liveness and refusals.

    Args:
        count: threads that run the application.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.set_thread_count(count)
        self._quick = ThreadedTaskDispatcher()
        self._quick.set_thread_count(1)

    def add_task(self, task: Connection) -> None:
        """Hand a request to the extra thread or to the others."""
        request = task.requests[0]
        if request.error is not None or request.path == _PROBE:
            self._quick.add_task(task)
        else:
            super().add_task(task)

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:  # noqa: FBT001, FBT002 - waitress's own signature
        """Stop all threads."""
        self._quick.shutdown(cancel_pending, timeout)
        return bool(super().shutdown(cancel_pending, timeout))


class _LimitedListener:
    """Look after a listener's connections; both kinds of listener have this in common."""

    channel_class: type[HTTPChannel] = Connection
    active_channels: dict[int, Connection]
    limits = Limits()

    def maintenance(self, now: float) -> None:
        """End what takes too long; called by waitress every second."""
        for connection in list(self.active_channels.values()):
            connection.enforce_limits(now)

    def handle_accept(self) -> None:
        """Accept a client; at the limit, the connection answered longest ago makes room."""
        idle = (each for each in self.active_channels.values() if not each.is_served)
        if len(self.active_channels) >= self.limits.connections:
            oldest = min(idle, key=lambda each: each.held_since, default=None)
            if oldest is not None:
                oldest.handle_close()
        super().handle_accept()  # type: ignore[misc] # of the listener beside it


class _TcpListener(_LimitedListener, TcpWSGIServer):
    """Listen on a TCP socket."""


class _UnixListener(_LimitedListener, UnixWSGIServer):
    """Listen on a Unix socket."""


class Server:
    """Serve the WSGI application on bound sockets.

    Args:
        sockets: bound; the server listens on them from here on.
        application: answers the requests.
        threads: how many requests are answered at a time.
        limits: what clients are allowed; connections are at most as many as the process may open.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        application: WSGIHandler,
        *,
        threads: int,
        limits: Limits | None = None,
    ) -> None:
        self._limits = _within_open_files(limits or Limits())
        self._map: dict[int, Any] = {}
        self._threads = _AnsweringThreads(threads)
        self._listeners = [self._listen(each, application) for each in sockets]

    def _listen(self, bound: socket.socket, application: WSGIHandler) -> Any:
        is_unix = bound.family == socket.AF_UNIX
        listener = (_UnixListener if is_unix else _TcpListener)(
            application,
            map=self._map,
            _sock=bound,
            dispatcher=self._threads,
            adj=_adjustments(),
            sockinfo=(bound.family, bound.type, bound.proto, bound.getsockname()),
            bind_socket=False,
        )
        listener.limits = self._limits
        return listener

    def run_once(self, seconds: float = LOOP_SECONDS) -> None:
        """Handle what clients send and take.

        Args:
            seconds: how long to wait where there is nothing to do.
        """
        wasyncore.loop(timeout=seconds, map=self._map, use_poll=True, count=1)

    def wake(self) -> None:
        """End a wait in `run_once()`, from any thread or a signal handler."""
        self._listeners[0].pull_trigger()

    def stop(self, *, within: float, alive: Callable[[], object] = lambda: None) -> None:
        """Take no more connections, finish what is being answered, close.

        Args:
            within: seconds until unfinished answers are dropped.
            alive: called again and again meanwhile.
        """
        deadline = time.monotonic() + within
        for listener in self._listeners:
            listener.accepting = False
            listener.del_channel()
            listener.socket.close()
        try:
            self.run_once(0)  # what had arrived already
            while self._close_unserved() and time.monotonic() < deadline:
                alive()
                self.run_once()
        finally:
            self._threads.shutdown(timeout=0.5)
            wasyncore.close_all(self._map)

    def _close_unserved(self) -> int:
        """Close the connections that wait for no answer.

        Returns:
            How many are left.
        """
        left = 0
        for listener in self._listeners:
            for connection in list(listener.active_channels.values()):
                if connection.is_served:
                    left += 1
                else:
                    connection.handle_close()
        return left


class WebServer:
    """Serve for `manage.py up`.

    Args:
        host: address to serve.
        port: its port; 0 takes a free one.
        application: answers the requests.
        threads: how many requests are answered at a time.
        limits: what clients are allowed.

    Raises:
        OSError: the address is taken, or not of this machine.
    """

    def __init__(
        self,
        host: str,
        port: int,
        application: WSGIHandler,
        *,
        threads: int = 16,
        limits: Limits | None = None,
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self.port = int(self._socket.getsockname()[1])
        self._application = application
        self._threads = threads
        self._limits = limits

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set, then finish what is being answered."""
        server = Server(
            [self._socket], self._application, threads=self._threads, limits=self._limits
        )
        try:
            while not stop.is_set():
                server.run_once()
        finally:
            server.stop(within=STOP_SECONDS)

    def close(self) -> None:
        """Free the port of a server that never ran."""
        self._socket.close()


def _adjustments() -> Adjustments:
    return Adjustments(
        backlog=BACKLOG,
        ident=None,
        asyncore_use_poll=True,
        log_socket_errors=False,
        # Set by our own proxy or by nobody: BEHIND_TLS_PROXY decides whether Django believes it.
        clear_untrusted_proxy_headers=False,
        cleanup_interval=TEND_SECONDS,
        connection_limit=1_000_000,  # waitress would stop to accept; a listener makes room instead
        inbuf_overflow=BUFFERED_BYTES,
        max_request_header_size=MAX_HEADER_BYTES,
        max_request_body_size=settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1,
    )


def _within_open_files(limits: Limits) -> Limits:
    """Lower the number of connections to what the process may open."""
    files = _open_files(limits.connections + _OTHER_FILES)
    return replace(limits, connections=min(limits.connections, max(64, files - _OTHER_FILES)))


def _open_files(wanted: int) -> int:
    """Raise the soft limit of open files towards the hard one.

    Args:
        wanted: files that are enough.

    Returns:
        How many files the process may open now; `wanted`, where there is no limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return most
    return wanted if soft == resource.RLIM_INFINITY else soft
