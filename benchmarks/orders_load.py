"""Place orders over HTTP, in an open or a closed loop, and wait for their ends.

The ends are read from PostgreSQL, so that waiting costs the web nothing.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import TypeVar

from benchmarks.measuring import Observer
from benchmarks.orders_by_hand import AMOUNT, Order, product_name

T = TypeVar("T")

ACCEPTED = (200, 202)  # 200: placed before
MOST_ITEMS = 100  # of an order
LOOKS = 0.02  # seconds between two looks for ends
SENDERS = 32  # of the open loop: a late answer must not delay the next order
PATIENCE = 300.0  # seconds until an order's end
_ENDED = """
    SELECT coalesce(array_agg(order_id), '{}') FROM orders_order
    WHERE order_id = ANY(%s) AND status NOT IN ('pending', 'processing')
"""


@dataclass(slots=True)
class Load:
    """Hold what was placed.

    Attributes:
        began: Unix time just before the first POST.
        answered: seconds of each POST.
    """

    began: float = 0.0
    answered: list[float] = field(default_factory=list)


class Placing:
    """Place orders at a service.

    Args:
        port: of the service on this machine.
        observer: at its database.
    """

    def __init__(self, port: int, observer: Observer) -> None:
        self._port = port
        self._ends = _Ends(observer)
        self._own = threading.local()

    def introduce(self, products: int) -> None:
        """Place a few long orders, each many times over, to make every product known.

        A web process asks PostgreSQL for each product only once; that must not count.
        """
        names = [product_name(n) for n in range(products)]
        parts = [names[n : n + MOST_ITEMS] for n in range(0, products, MOST_ITEMS)]
        bodies = {(order_id := uuid.uuid4().hex): _body(order_id, part) for part in parts}
        with self._ends.watched():
            for order_id in bodies:
                self._ends.expect(order_id)
            for body in bodies.values():
                _in_threads(SENDERS, self._send, [body] * SENDERS)
            for order_id in bodies:
                self._ends.wait(order_id)

    def closed(self, orders: Sequence[Order], *, clients: int) -> Load:
        """Let clients each place an order, wait for its end, and place the next."""

        def place(order: Order) -> None:
            load.answered.append(self._post(order))
            self._ends.wait(order.order_id)

        load = Load(began=time.time())
        with self._ends.watched():
            _in_threads(clients, place, orders)
        return load

    def open(self, orders: Sequence[Order], *, rate: float) -> Load:
        """Place orders at a rate, whatever becomes of them, then wait for all ends."""

        def place(number: int) -> None:
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            load.answered.append(self._post(orders[number]))

        load = Load(began=time.time())
        began = time.monotonic()
        with self._ends.watched():
            _in_threads(SENDERS, place, range(len(orders)))
            for order in orders:
                self._ends.wait(order.order_id)
        return load

    def _post(self, order: Order) -> float:
        """Place an order; return how many seconds the answer took."""
        self._ends.expect(order.order_id)
        body = _body(order.order_id, [order.product_id])
        began = time.perf_counter()
        self._send(body)
        return time.perf_counter() - began

    def _send(self, body: bytes) -> None:
        connection = self._connection()
        try:
            connection.request("POST", "/orders/", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
        except (HTTPException, OSError) as error:
            raise SystemExit(f"POST /orders/: {error!r}") from error
        if response.status not in ACCEPTED:
            raise SystemExit(f"POST /orders/ was answered {response.status}: {answer[:200]!r}")

    def _connection(self) -> HTTPConnection:
        """Return this thread's connection."""
        if not hasattr(self._own, "connection"):
            self._own.connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        found: HTTPConnection = self._own.connection
        return found


class _Ends:
    """Look again and again which of the expected orders have ended."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._expected: dict[str, threading.Event] = {}

    def expect(self, order_id: str) -> None:
        """Look for an order's end from now on."""
        self._expected[order_id] = threading.Event()

    def wait(self, order_id: str) -> None:
        """Wait until an expected order has ended."""
        event = self._expected.get(order_id)
        if event is not None and not event.wait(PATIENCE):
            raise SystemExit(f"order {order_id} has not ended within {PATIENCE:g} s")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look from a thread, for the block."""
        over = threading.Event()
        thread = threading.Thread(target=self._look, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _look(self, over: threading.Event) -> None:
        while not over.wait(LOOKS):
            for order_id in self._observer.ask(_ENDED, list(self._expected)):
                self._expected.pop(order_id).set()


def _body(order_id: str, product_ids: Sequence[str]) -> bytes:
    items = [{"id": each, "name": "Widget", "quantity": 1} for each in product_ids]
    body = {"order_id": order_id, "user_id": "USER-1", "items": items, "amount": float(AMOUNT)}
    return json.dumps(body).encode()


def _in_threads(threads: int, do: Callable[[T], None], each: Iterable[T]) -> None:
    """Do it for each in a few threads; the first failure is raised here."""
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(do, one) for one in each]
        for future in as_completed(futures):
            if future.exception() is not None:
                pool.shutdown(cancel_futures=True, wait=False)
            future.result()
