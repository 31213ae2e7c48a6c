"""Clients that hold connections open, and what the others see of the server meanwhile."""

import json
import select
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException

BYTE_EVERY = 2.0  # seconds
HEALTH_EVERY = 0.2
PATIENCE = 30.0
_BODY = 4_000
_SLOW_REQUESTS = (
    b"GET /orders/ HTTP/1.1\r\nHost: localhost\r\nX-Padding: " + b"a" * _BODY,
    b"POST /orders/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % _BODY,
)


@contextmanager
def crowd(port: int, *, slow: int, idle: int) -> Iterator[None]:
    """Hold connections open: `slow` ones send a byte every two seconds, half of them in the head of
    a request and half in its body; `idle` ones send nothing. A connection that is closed by the
    server is opened again."""
    over = threading.Event()
    with ExitStack() as connections:
        clients = [
            connections.enter_context(_Client(port, _SLOW_REQUESTS[n % 2])) for n in range(slow)
        ]
        clients += [connections.enter_context(_Client(port, b"")) for _ in range(idle)]
        dribbling = threading.Thread(target=_dribble, args=(clients, over))
        dribbling.start()
        try:
            yield
        finally:
            over.set()
            dribbling.join()


class _Client:
    def __init__(self, port: int, text: bytes) -> None:
        self._port = port
        self._text = text
        self._connection: socket.socket | None = None

    def __enter__(self) -> "_Client":
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()

    def dribble(self) -> None:
        if self._connection is not None and select.select([self._connection], [], [], 0)[0]:
            self._connection.close()
            self._open()
        elif self._connection is not None and self._text:
            self._connection.send(b"a")

    def _open(self) -> None:
        self._connection = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE)
        self._connection.sendall(self._text)


def _dribble(clients: list[_Client], over: threading.Event) -> None:
    while not over.wait(BYTE_EVERY):
        for client in clients:
            client.dribble()


@dataclass(slots=True)
class Seen:
    """`health`: seconds of each answer of /health/. `orders`: statuses. `failures`: of both."""

    health: list[float] = field(default_factory=list)
    orders: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def look(port: int, *, seconds: float, rate: float) -> Seen:
    """Place `rate` orders a second and ask for the health, each over a connection of its own."""
    seen = Seen()
    began = time.monotonic()
    with ThreadPoolExecutor(64) as pool:
        pool.submit(_ask_for_health, port, began + seconds, seen)
        for number in range(int(seconds * rate)):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            pool.submit(_place, port, seen)
    return seen


def _ask_for_health(port: int, deadline: float, seen: Seen) -> None:
    while time.monotonic() < deadline:
        asked = time.monotonic()
        if _status(port, seen, "GET", "/health/") != 200:
            seen.failures.append("/health/ is not healthy")
        seen.health.append(time.monotonic() - asked)
        time.sleep(HEALTH_EVERY)


def _place(port: int, seen: Seen) -> None:
    order = {
        "order_id": f"S-{uuid.uuid4().hex}",
        "user_id": "USER-1",
        "items": [{"id": "ITEM-1", "name": "Widget", "quantity": 1}],
        "amount": 9.99,
    }
    seen.orders.append(_status(port, seen, "POST", "/orders/", json.dumps(order)))


def _status(port: int, seen: Seen, method: str, path: str, body: str | None = None) -> int:
    with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        try:
            headers = {"Content-Type": "application/json"} if body else {}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, HTTPException) as error:
            seen.failures.append(repr(error))
            return 0
        return answer.status
