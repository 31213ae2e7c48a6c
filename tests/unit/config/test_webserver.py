"""The web server of `manage.py up`, over real sockets."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NoReturn

import pytest
import requests
from django.core.handlers.wsgi import WSGIHandler
from waitress.adjustments import Adjustments

from config.serving import webserver
from config.serving.connections import Limits
from config.serving.framing import Refusal, StrictParser
from config.serving.webserver import STOP_SECONDS, WebServer
from config.web.health import Readiness
from tests.unit.waiting import TIMEOUT

pytestmark = pytest.mark.django_db


THREADS = 3
IMPATIENT = Limits(request_seconds=0.2, idle_seconds=0.2)


class Running:
    """A web server in a thread."""

    def __init__(self, limits: Limits) -> None:
        self.server = WebServer("127.0.0.1", 0, WSGIHandler(), threads=THREADS, limits=limits)
        self.url = f"http://127.0.0.1:{self.server.port}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.server.run, args=(self._stop,))
        self._thread.start()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=TIMEOUT)

    def stop(self) -> float:
        """Stop it; returns the seconds that took."""
        began = time.monotonic()
        self._stop.set()
        self._thread.join(2 * STOP_SECONDS)
        assert not self._thread.is_alive()
        return time.monotonic() - began


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    """A server with the usual limits, or with those that a test gives as its parameter."""
    running = Running(getattr(request, "param", Limits()))
    yield running
    running.stop()


def length_of(head: bytes) -> int:
    """The Content-Length that a head names."""
    [value] = re.findall(rb"(?i)content-length: *([0-9]+)", head)
    return int(value)


def answer_of(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """The status and JSON body of the answer, read to its end."""
    with connection.makefile("rb") as stream:
        head, _, body = stream.read().partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def test_it_answers(server: Running) -> None:
    response = requests.get(f"{server.url}/health/", timeout=TIMEOUT)

    assert response.json() == {"status": "healthy"}


def test_a_connection_is_used_again(server: Running) -> None:
    with server.connect() as connection, connection.makefile("rb") as stream:
        for _ in range(2):
            connection.sendall(b"GET /health/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = b"".join(iter(stream.readline, b"\r\n"))
            assert b" 200 " in head
            assert stream.read(length_of(head)) == b'{"status": "healthy"}'


def test_an_answer_to_head_has_no_body(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"HEAD /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        with connection.makefile("rb") as stream:
            head, _, body = stream.read().partition(b"\r\n\r\n")

    assert b" 404 " in head
    assert body == b""


def chunks() -> Iterator[bytes]:
    for _ in range(100):
        yield b" " * 65_536


@pytest.mark.parametrize(
    ("body", "status"),
    [(b" " * 2 * 1_048_576, 413), (b" " * 20 * 1_048_576, 413), (chunks(), 411)],
    ids=["2 MiB", "20 MiB", "chunked"],
)
def test_a_client_that_still_sends_can_read_its_refusal(
    server: Running, body: Any, status: int
) -> None:
    response = requests.post(
        f"{server.url}/orders/",
        data=body,
        headers={"Content-Type": "application/json"},
        timeout=TIMEOUT,
    )

    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET", 400),
        (b"GET / HTTP/9.0", 505),
        (b"GET / FTP/1.1", 400),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1", 414),
        (b"\x16\x03\x01\x02\x00\x01", 400),
    ],
    ids=lambda value: repr(value[:16]) if isinstance(value, bytes) else str(value),
)
def test_what_is_no_http_gets_a_problem(server: Running, request_line: bytes, status: int) -> None:
    with server.connect() as connection:
        connection.sendall(request_line + b"\r\nHost: localhost\r\n\r\n")
        code, body = answer_of(connection)

    assert code == body["status"] == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Content-Length: 2, 2", 400),
        ("Content-Length: 2\r\nContent-Length: 2", 400),
        ("Content-Length: 2\r\nContent-Length: 3", 400),
        ("Content-Length: -1", 400),
        ("Content-Length: +2", 400),
        ("Content-Length: 2 2", 400),
        ("Content-Length: 0x2", 400),
        ("Content-Length: \xb2", 400),
        ("Content-Length:", 400),
        ("Content-Length: " + "9" * 5000, 400),
        ("Content-Length: " + "9" * 20, 413),
        ("Content-Length : 2", 400),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked", 411),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("X-A: a\r\n b: c", 400),
        ("X-A: a\nX-B: b", 400),
        ("X-A: \0", 400),
        ("no colon", 400),
        ("X-Long: " + "a" * 70_000, 431),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, str) else str(value),
)
def test_malformed_framing_is_refused(server: Running, headers: str, status: int) -> None:
    with server.connect() as connection:
        head = f"POST /nowhere HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n{{}}"
        connection.sendall(head.encode("latin-1"))
        code, body = answer_of(connection)

    assert code == body["status"] == status


def test_a_request_without_a_host_is_refused(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /health/ HTTP/1.1\r\n\r\n")
        assert answer_of(connection)[0] == 400


def test_a_body_that_ends_early_is_refused(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"POST /orders/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
            b"Content-Type: application/json\r\n\r\n{"
        )
        connection.shutdown(socket.SHUT_WR)
        code, _ = answer_of(connection)

    assert code == 400


@pytest.mark.parametrize("server", [IMPATIENT], indirect=True, ids=["impatient"])
def test_a_body_that_stalls_is_refused(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"POST /orders/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
            b"Content-Type: application/json\r\n\r\n{"
        )
        code, body = answer_of(connection)

    assert code == body["status"] == 408


@pytest.mark.parametrize("server", [IMPATIENT], indirect=True, ids=["impatient"])
@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: local"])
def test_a_client_that_says_nothing_is_left_without_a_word(
    server: Running, sent: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with server.connect() as connection:
        connection.sendall(sent)
        assert connection.recv(1) == b""

    server.stop()
    assert "Traceback" not in capfd.readouterr().err


def test_stopping_waits_for_no_idle_client(server: Running) -> None:
    with server.connect():
        requests.get(f"{server.url}/health/", timeout=TIMEOUT)  # by now the other one is accepted
        assert server.stop() < STOP_SECONDS / 2


def test_stopping_finishes_what_is_being_answered(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def slow() -> Readiness:
        arrived.set()
        assert go_on.wait(TIMEOUT)
        return Readiness(status="ready", detail="", checks=[])

    monkeypatch.setattr("config.web.health.readiness", slow)
    responses: list[requests.Response] = []
    client = threading.Thread(
        target=lambda: responses.append(
            requests.get(f"{server.url}/health/ready/", timeout=TIMEOUT)
        )
    )
    client.start()
    assert arrived.wait(TIMEOUT)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    assert stopping.is_alive()
    go_on.set()
    client.join(TIMEOUT)
    stopping.join(TIMEOUT)

    assert [response.status_code for response in responses] == [200]


def test_health_answers_while_every_thread_is_busy(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, go_on = threading.Semaphore(0), threading.Event()

    def slow() -> Readiness:
        arrived.release()
        assert go_on.wait(TIMEOUT)
        return Readiness(status="ready", detail="", checks=[])

    monkeypatch.setattr("config.web.health.readiness", slow)
    with ThreadPoolExecutor() as pool:
        asked = [
            pool.submit(requests.get, f"{server.url}/health/ready/", timeout=TIMEOUT)
            for _ in range(THREADS + 1)
        ]
        for _ in range(THREADS):
            assert arrived.acquire(timeout=TIMEOUT)
        try:
            assert requests.get(f"{server.url}/health/", timeout=TIMEOUT).status_code == 200
        finally:
            go_on.set()
        assert [each.result().status_code for each in asked] == [200] * (THREADS + 1)


@pytest.mark.parametrize("server", [Limits(connections=2)], indirect=True, ids=["room for two"])
def test_the_longest_held_connection_makes_room(server: Running) -> None:
    with server.connect() as first, server.connect() as second:
        first.sendall(b"GET / HT")
        second.sendall(b"GET / HT")
        assert requests.get(f"{server.url}/health/", timeout=TIMEOUT).status_code == 200
        with suppress(ConnectionResetError):  # where the server had not read it yet
            assert first.recv(1) == b""
        second.sendall(b"TP/1.0\r\n\r\n")
        assert second.recv(4) == b"HTTP"


def test_urgent_data_ends_the_connection(server: Running) -> None:
    """Left unread, it would wake the server's loop without end."""
    with server.connect() as connection:
        connection.send(b"!", socket.MSG_OOB)
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""


def test_a_taken_port_is_known_at_once(server: Running) -> None:
    with pytest.raises(OSError, match="in use"):
        WebServer("127.0.0.1", server.server.port, WSGIHandler())


def test_it_serves_ipv6_too() -> None:
    try:
        server = WebServer("::1", 0, WSGIHandler())
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    server.close()


def test_a_failure_is_told_from_being_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise ZeroDivisionError

    server = WebServer("127.0.0.1", 0, WSGIHandler())
    monkeypatch.setattr(webserver.Server, "run_once", fail)
    stop = threading.Event()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(server.run, stop)
        with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT):
            assert isinstance(running.exception(10), ZeroDivisionError)

    assert not stop.is_set()


@pytest.mark.parametrize("pieces", [[80_000], [40_000, 40_000], [69_000, 1_000, 10_000]])
def test_a_long_address_is_told_from_long_headers_however_its_bytes_come(pieces: list[int]) -> None:
    adjustments = Adjustments(max_request_header_size=65_536)
    head = b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    parser = StrictParser(adjustments)
    at = 0
    for size in pieces:
        piece = head[at : at + size]
        if piece and not parser.completed:
            parser.received(piece)
        at += size
    assert isinstance(parser.error, Refusal)
    assert parser.error.code == 414
