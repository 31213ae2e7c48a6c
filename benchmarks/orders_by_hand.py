"""Write the rows of an order by hand, in psycopg: what is left of an order without its saga.

Five transactions an order, with the rows that `orders.services`, `orders.fulfilment`,
`orders.payments.simulated` and `orders.endings` write: the order; its reservation; the charge, in
the gateway's ledger and in our books; the shipment; the end. No outbox, Kafka or journal.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import psycopg

Connection = psycopg.Connection[Any]

AMOUNT = "9.99"


@dataclass(frozen=True, slots=True)
class Order:
    """Describe an order: one piece of one product."""

    order_id: str
    product_id: str


def new_orders(count: int, *, products: int) -> list[Order]:
    """Describe orders, with products that take turns."""
    run = uuid.uuid4().hex[:8]
    return [Order(f"{run}-{n:06d}", product_name(n % products)) for n in range(count)]


def product_name(number: int) -> str:
    """Name a product."""
    return f"BENCH-{number}"


def fill_stock(url: str, *, products: int) -> None:
    """Put so many products into stock, each with more pieces than are ever ordered."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO orders_product (product_id, name, received, on_hand, reserved, shipped)"
            " SELECT 'BENCH-' || n, 'Widget', 1000000000, 1000000000, 0, 0"
            " FROM generate_series(0, %s) n ON CONFLICT DO NOTHING",
            [products - 1],
        )


def place(connection: Connection, order: Order) -> int:
    """Insert an order; return its number."""
    cursor = connection.execute(
        "INSERT INTO orders_order (order_id, user_id, items, amount, status, reason,"
        " cancel_reason, saga_id, correlation_id, traceparent, created_at, updated_at)"
        " VALUES (%s, 'USER-1', jsonb_build_array("
        "jsonb_build_object('id', %s::text, 'name', 'Widget', 'quantity', 1)),"
        " %s, 'pending', '', '', gen_random_uuid(), '', '', now(), now()) RETURNING id",
        [order.order_id, order.product_id, AMOUNT],
    )
    [number] = cursor.fetchone() or [0]
    return int(number)


def reserve(connection: Connection, order: Order, number: int) -> None:
    """Reserve the order's product."""
    connection.execute(
        "UPDATE orders_product SET on_hand = on_hand - 1, reserved = reserved + 1"
        " WHERE product_id = %s AND on_hand >= 1",
        [order.product_id],
    )
    connection.execute(
        "INSERT INTO orders_reservation (order_id, product_id, quantity, status)"
        " SELECT %s, id, 1, 'active' FROM orders_product WHERE product_id = %s",
        [number, order.product_id],
    )
    connection.execute(
        "UPDATE orders_order SET status = 'processing', updated_at = now() WHERE id = %s", [number]
    )


def charge(connection: Connection, order: Order, number: int) -> None:
    """Enter the charge into the ledger, and into our books."""
    connection.execute(
        "INSERT INTO orders_simulatedcharge (key, reference, amount, status, created_at)"
        " VALUES (%s, %s, %s, 'charged', now())",
        [order.order_id, order.order_id, AMOUNT],
    )
    connection.execute(
        "INSERT INTO orders_payment (order_id, key, transaction_id, amount, status, charged_at)"
        " VALUES (%s, %s, %s, %s, 'charged', now())",
        [number, order.order_id, order.order_id, AMOUNT],
    )


def ship(connection: Connection, order: Order, number: int) -> None:
    """Turn the reservation into a shipment."""
    connection.execute(
        "UPDATE orders_product SET reserved = reserved - 1, shipped = shipped + 1"
        " WHERE product_id = %s",
        [order.product_id],
    )
    connection.execute(
        "UPDATE orders_reservation SET status = 'shipped' WHERE order_id = %s", [number]
    )
    connection.execute(
        "INSERT INTO orders_shipment (order_id, tracking, created_at) VALUES (%s, %s, now())",
        [number, order.order_id],
    )


def end(connection: Connection, _order: Order, number: int) -> None:
    """Give the order its last status."""
    connection.execute(
        "UPDATE orders_order SET status = 'fulfilled', updated_at = now() WHERE id = %s", [number]
    )


AFTER_PLACING: Sequence[Callable[[Connection, Order, int], None]] = (reserve, charge, ship, end)


class ByHand:
    """Write orders from a few threads, each with a connection of its own, for a `with` block.

    Attributes:
        order_seconds: of the last run, the time of each order's transactions.
    """

    def __init__(self, url: str, *, threads: int) -> None:
        self.title = self.title_of(threads=threads)
        self.order_seconds: list[float] = []
        self._url = url
        self._threads = threads
        self._connections: list[Connection] = []

    @staticmethod
    def title_of(*, threads: int) -> str:
        """Name the case."""
        return f"by hand, {threads} thread{'s' if threads > 1 else ''}"

    def __enter__(self) -> Self:
        self._connections = [
            psycopg.connect(self._url, autocommit=True) for _ in range(self._threads)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()

    def run(self, orders: Sequence[Order]) -> None:
        """Write all orders."""
        parts = [orders[n :: self._threads] for n in range(self._threads)]
        with ThreadPoolExecutor(self._threads) as pool:
            found = list(pool.map(_write_all, self._connections, parts))
        self.order_seconds = [seconds for part in found for seconds in part]


def _write_all(connection: Connection, orders: Sequence[Order]) -> list[float]:
    """Write orders; return the seconds that each took."""
    took = []
    for order in orders:
        began = time.perf_counter()
        _write(connection, order)
        took.append(time.perf_counter() - began)
    return took


def _write(connection: Connection, order: Order) -> None:
    with connection.transaction():
        number = place(connection, order)
    for step in AFTER_PLACING:
        with connection.transaction():
            step(connection, order, number)
