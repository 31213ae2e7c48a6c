"""Run orders as workflows of DBOS Transact: the five transactions by hand, each as a step.

A step's own transaction commits before DBOS's record of the step, so after a crash the step may
run again: less than what the saga's local steps promise, and faster than DBOS's own transactions,
which have a record more.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self

from dbos import DBOS
from psycopg_pool import ConnectionPool

from benchmarks import orders_by_hand
from benchmarks.orders_by_hand import Connection, Order
from benchmarks.sagas_dbos import CONNECTIONS, THREADS

Transaction = AbstractContextManager[Connection]


class Workflows:
    """Run workflows in this process, by DBOS's threads, for a `with` block."""

    title = "DBOS, five steps"

    def __init__(self, url: str) -> None:
        self.order_seconds: list[float] = []
        self._url = url
        self._pool: ConnectionPool[Any] | None = None
        self._workflow = _workflow(self._connection)

    def __enter__(self) -> Self:
        """Start DBOS; its tables are in the orders' database."""
        self._pool = ConnectionPool(self._url, min_size=THREADS, open=True)
        config: Any = {
            "name": "benchmark",
            "system_database_url": self._url,
            "sys_db_pool_size": CONNECTIONS,
            "max_executor_threads": THREADS,
            "log_level": "WARNING",
        }
        DBOS(config=config)
        DBOS.launch()
        return self

    def __exit__(self, *_: object) -> None:
        DBOS.destroy()
        if self._pool is not None:
            self._pool.close()

    def run(self, orders: Sequence[Order]) -> None:
        """Start a workflow for each order, and wait for all."""
        handles = [
            DBOS.start_workflow(self._workflow, order.order_id, order.product_id)
            for order in orders
        ]
        for handle in handles:
            handle.get_result()

    def _connection(self) -> Transaction:
        if self._pool is None:
            raise RuntimeError("DBOS has not been started")
        return self._pool.connection()


def _workflow(transaction: Callable[[], Transaction]) -> Callable[[str, str], None]:
    """Define the workflow, whose steps are a transaction each."""

    @DBOS.step()
    def place(order_id: str, product_id: str) -> int:
        with transaction() as connection:
            return orders_by_hand.place(connection, Order(order_id, product_id))

    @DBOS.step()
    def do(name: str, order_id: str, product_id: str, number: int) -> None:
        with transaction() as connection:
            getattr(orders_by_hand, name)(connection, Order(order_id, product_id), number)

    def fulfil(order_id: str, product_id: str) -> None:
        number = place(order_id, product_id)
        for step in orders_by_hand.AFTER_PLACING:
            do(step.__name__, order_id, product_id, number)

    workflow: Callable[[str, str], None] = DBOS.workflow()(fulfil)
    return workflow
