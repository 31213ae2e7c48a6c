"""The web server of `manage.py up`, over real sockets."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import pytest
import requests
from django.core.handlers.wsgi import WSGIHandler
from django.db import connections

from config import webserver
from config.health import Readiness
from config.webserver import WebServer

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("quiet")]


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about the server: its threads leave the test's database alone."""
    monkeypatch.setattr(webserver._Server, "_close_connections", connections.close_all)


class Running:
    """A web server in a thread."""

    def __init__(self) -> None:
        self.server = WebServer("127.0.0.1", 0, WSGIHandler())
        self.url = f"http://127.0.0.1:{self.server.port}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.server.run, args=(self._stop,))
        self._thread.start()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=10)

    def stop(self) -> float:
        """Stop it; returns the seconds that took."""
        began = time.monotonic()
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
        return time.monotonic() - began


@pytest.fixture
def server() -> Iterator[Running]:
    running = Running()
    yield running
    running.stop()


def answer_of(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """The status and JSON body of the answer, read to its end."""
    with connection.makefile("rb") as stream:
        head, _, body = stream.read().partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def test_it_answers(server: Running) -> None:
    response = requests.get(f"{server.url}/health/", timeout=10)

    assert response.json() == {"status": "healthy"}
    assert response.headers["Connection"] == "close"


def test_an_answer_to_head_has_no_body(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(b"HEAD /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
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
        timeout=10,
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


def test_a_body_that_ends_early_is_refused(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"POST /orders/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
            b"Content-Type: application/json\r\n\r\n{"
        )
        connection.shutdown(socket.SHUT_WR)
        code, _ = answer_of(connection)

    assert code == 400


def test_a_body_that_stalls_is_refused(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webserver._Handler, "timeout", 0.2)
    with server.connect() as connection:
        connection.sendall(
            b"POST /orders/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
            b"Content-Type: application/json\r\n\r\n{"
        )
        code, body = answer_of(connection)

    assert code == body["status"] == 408


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: local"])
def test_a_client_that_says_nothing_is_left_without_a_word(
    server: Running,
    sent: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(webserver._Handler, "timeout", 0.2)
    with server.connect() as connection:
        connection.sendall(sent)
        assert connection.recv(1) == b""

    server.stop()
    assert "Traceback" not in capfd.readouterr().err


def test_stopping_waits_for_no_idle_client(server: Running) -> None:
    with server.connect():
        requests.get(f"{server.url}/health/", timeout=10)  # by now the other one is accepted
        assert server.stop() < 5


def test_stopping_finishes_what_is_being_answered(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def slow() -> Readiness:
        arrived.set()
        assert go_on.wait(10)
        return Readiness(status="ready", detail="", checks=[])

    monkeypatch.setattr("config.health.readiness", slow)
    responses: list[requests.Response] = []
    client = threading.Thread(
        target=lambda: responses.append(requests.get(f"{server.url}/health/ready/", timeout=10))
    )
    client.start()
    assert arrived.wait(10)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    assert stopping.is_alive()
    go_on.set()
    client.join(10)
    stopping.join(10)

    assert [response.status_code for response in responses] == [200]


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
    monkeypatch.setattr(server._server, "_handle_request_noblock", fail)
    stop = threading.Event()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(server.run, stop)
        with socket.create_connection(("127.0.0.1", server.port), timeout=10):
            assert isinstance(running.exception(10), ZeroDivisionError)

    assert not stop.is_set()
