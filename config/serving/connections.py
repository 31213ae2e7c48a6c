"""Handle one client's connection: a thread serves a request only after all of it has arrived."""

import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

from waitress.channel import HTTPChannel
from waitress.task import ErrorTask

from config.serving.framing import Refusal, StrictParser
from config.web.problems import problem
from saga_runtime.correlation import correlated, taken_or_made

_READ_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Hold what a server allows its clients.

    Attributes:
        idle_seconds: how long a connection may be silent between two requests, or leave its answer
            unread.
        request_seconds: how long a request may take to arrive, from its first byte to its last.
        linger_seconds: how long further bytes of a client are read and dropped after the last
            answer. A close before would reset the connection, with the answer still unread.
        connections: how many a process keeps; beyond them, the connection that was answered
            longest ago makes room.
    """

    idle_seconds: float = 75.0
    request_seconds: float = 60.0
    linger_seconds: float = 2.0
    connections: int = 4_000


class ProblemTask(ErrorTask):
    """Answer a request that never reaches Django with a problem, as Django would."""

    def execute(self) -> None:
        """Write the problem, and close the connection."""
        error = self.request.error
        code = error.code if error is not None else HTTPStatus.INTERNAL_SERVER_ERROR
        with correlated(taken_or_made(id=None, traceparent=None)) as correlation:
            response = problem(code, error.body if isinstance(error, Refusal) else "")
        self.status = f"{code} {HTTPStatus(code).phrase}"
        self.response_headers += [
            ("Content-Type", response["Content-Type"]),
            ("X-Correlation-ID", correlation.id),
        ]
        self.set_close_on_finish()
        self.content_length = len(response.content)
        self.write(b"" if self.request.command == "HEAD" else response.content)


class Connection(HTTPChannel):
    """Read requests and write answers at the client's pace, all in the server's own loop.

    Three marks, in Unix time: since when a request has been arriving, when the last answer was
    made, and until when the connection lingers after its last answer.
    """

    parser_class = StrictParser
    error_task_class = ProblemTask
    _arriving_since: float | None = None
    _answered_at: float | None = None
    _lingers_until: float | None = None

    def readable(self) -> bool:
        """Tell the loop whether to wait for bytes of the client."""
        if self._lingers_until is not None:
            return not self.will_close
        return bool(super().readable())

    def handle_read(self) -> None:
        """Take the client's bytes; an end in the middle of a body is answered, too."""
        try:
            data = self.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data and self._lingers_until is None:
            self.last_activity = time.time()
            self.received(data)
            self._note_arrival()
        elif not data and not self.refuse(400, "the body ended early"):
            self.handle_close()

    def handle_write(self) -> None:
        """Send what is ready; after the last answer wait a while for the client's end."""
        if not self.close_when_flushed:
            super().handle_write()
            return
        self._flush_exception(self._flush_some)
        if self.will_close:
            self.handle_close()
        elif self.connected and not self.total_outbufs_len:
            self._linger()

    def handle_expt(self) -> None:
        """Hang up on urgent data, which HTTP has not: unread, it wakes the loop again and again."""
        self.handle_close()

    def refuse(self, status: int, detail: str) -> bool:
        """Answer a request whose body does not come.

        Returns:
            Whether a request was there to be answered.
        """
        with self.requests_lock:
            request = self.request
            if request is None or not request.headers_finished or self.requests:
                return False
            self.request = None
            request.error, request.completed = Refusal(status, detail), True
            self.requests.append(request)
        self.server.add_task(self)
        return True

    def enforce_limits(self, now: float) -> None:
        """End what takes too long: an idle connection, a slow request, a lingering end.

        Args:
            now: Unix time in seconds.
        """
        if self._lingers_until is not None:
            self.will_close = self.will_close or now >= self._lingers_until
        elif self.requests:
            return
        elif self._arriving_since is not None:
            if now - self._arriving_since > self._limits.request_seconds:
                self._arriving_since = None
                self.will_close = not self.refuse(408, "the request did not arrive in time")
        elif now - self.last_activity > self._limits.idle_seconds:
            self.will_close = True

    def service(self) -> None:
        """Answer the request that has arrived; called in a thread."""
        super().service()
        self._answered_at = time.time()

    @property
    def is_served(self) -> bool:
        """Whether an answer is being made or sent."""
        return bool(self.requests or self.total_outbufs_len)

    @property
    def held_since(self) -> float:
        """When the connection was opened, or last answered, in Unix time."""
        return self._answered_at or self.creation_time

    @property
    def _limits(self) -> Limits:
        limits: Limits = self.server.limits
        return limits

    def _note_arrival(self) -> None:
        """Note when the current request began to arrive, or that there is none."""
        if self.request is None:
            self._arriving_since = None
        elif self._arriving_since is None:
            self._arriving_since = time.time()

    def _linger(self) -> None:
        """Close our side, and go on reading for a while so that the client can read its answer."""
        self.close_when_flushed = False
        self._lingers_until = time.time() + self._limits.linger_seconds
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
