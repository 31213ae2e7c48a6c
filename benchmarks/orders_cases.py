"""Run orders by the service, by hand and by DBOS, and measure what an order costs."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol, Self

from benchmarks import cpu_time, orders_stages
from benchmarks.measuring import Observer
from benchmarks.orders_by_hand import Order, new_orders
from benchmarks.orders_load import Load, Placing
from benchmarks.orders_service import PARTS, Checkout, Service, Topics
from benchmarks.wire_counting import Counts, WireCounter

WARM_UP = 20  # orders
# Seconds after which PostgreSQL has added up what a connection did that is now idle.
ADDED_UP = 11.0
_WORK = """
    SELECT xact_commit, inserted, updated, hot, deleted FROM pg_stat_database, (
        SELECT sum(n_tup_ins) AS inserted, sum(n_tup_upd) AS updated,
            sum(n_tup_hot_upd) AS hot, sum(n_tup_del) AS deleted
        FROM pg_stat_user_tables
    ) AS tables WHERE datname = current_database()
"""

TRANSACTIONS = "an order's transactions"
Stages = dict[str, list[float]]  # milliseconds


@dataclass(frozen=True, slots=True)
class Work:
    """Hold what a database has done.

    Attributes:
        commits: with transactions that only read.
        inserted: rows.
        updated: rows.
        hot: of the updated, those that touched no index.
        deleted: rows.
    """

    commits: float
    inserted: float
    updated: float
    hot: float
    deleted: float

    @classmethod
    def until_now(cls, observer: Observer) -> "Work":
        """Read the counts of the observer's database."""
        [row] = observer.rows(_WORK)
        return cls(*map(float, row))

    def since(self, before: "Work", *, orders: int) -> "Work":
        """Return what was done since then, for one order."""
        pairs = zip(figures(self), figures(before), strict=True)
        return Work(*((now - then) / orders for now, then in pairs))


def figures(work: Work) -> list[float]:
    """Return the counts in the order of the columns."""
    return [work.commits, work.inserted, work.updated, work.hot, work.deleted]


@dataclass(frozen=True, slots=True)
class Result:
    """Hold the result of one run.

    Attributes:
        rate: orders a second.
        work: of the database, for one order.
        cpu: milliseconds for one order, by process.
        stages: milliseconds of each order, by stage; by hand, of its transactions.
    """

    rate: float
    work: Work
    cpu: dict[str, float]
    stages: Stages = field(default_factory=dict)


class Case(Protocol):
    """Describe a line of the table."""

    title: str

    def run(self, count: int, *, products: int) -> Result:
        """Run so many orders, of so many products in turn."""


class Ours:
    """Run the service of a checkout.

    Args:
        checkout: whose code.
        url: its database.
        observer: at that database.
        topics: its topics.
        clients: orders at a time, in the closed loop.
        consumers: commands that consume.
        processes: of each of them.
    """

    def __init__(
        self,
        checkout: Checkout,
        url: str,
        observer: Observer,
        topics: Topics,
        *,
        clients: int,
        consumers: int,
        processes: int,
    ) -> None:
        self.title = checkout.title
        self._checkout = checkout
        self._url = url
        self._observer = observer
        self._topics = topics
        self._clients = clients
        self._consumers = consumers
        self._processes = processes

    def run(self, count: int, *, products: int) -> Result:
        """Place orders in a closed loop."""
        orders = new_orders(count, products=products)
        with self._running(dict.fromkeys(PARTS, self._url)) as service:
            placing = self._warm(service, products=products)
            time.sleep(ADDED_UP)
            work, cpu = Work.until_now(self._observer), self._cpu(service)
            load = placing.closed(orders, clients=self._clients)
            cpu = _difference(self._cpu(service), cpu, orders=count)
            found = self._moments(orders)
        self._observer.await_disconnected(self._observer.database)
        work = Work.until_now(self._observer).since(work, orders=count)
        seconds = max(moments[-1][1] for moments in found) - load.began
        return Result(count / seconds, work, cpu, _stages(load, found))

    def at_rates(
        self, rates: Sequence[float], *, seconds: float, products: int
    ) -> dict[float, Stages]:
        """Place orders in an open loop, at one rate after the other."""
        found = {}
        with self._running(dict.fromkeys(PARTS, self._url)) as service:
            placing = self._warm(service, products=products)
            for rate in rates:
                orders = new_orders(max(1, int(rate * seconds)), products=products)
                load = placing.open(orders, rate=rate)
                found[rate] = _stages(load, self._moments(orders))
        return found

    def statements(self, count: int, *, products: int) -> dict[str, Counts]:
        """Count what each part sends to PostgreSQL in a closed loop; the time does not count."""
        orders = new_orders(count, products=products)
        with ExitStack() as stack:
            wires = {part: stack.enter_context(WireCounter(self._url)) for part in PARTS}
            urls = {part: wire.url for part, wire in wires.items()}
            service = stack.enter_context(self._running(urls))
            placing = self._warm(service, products=products)
            before = {part: wire.counts.copy() for part, wire in wires.items()}
            placing.closed(orders, clients=self._clients)
            return {part: wire.counts - before[part] for part, wire in wires.items()}

    def _running(self, urls: Mapping[str, str]) -> Service:
        return Service(
            self._checkout,
            database_urls=urls,
            broker_url=self._topics.url,
            consumers=self._consumers,
            processes=self._processes,
        )

    def _warm(self, service: Service, *, products: int) -> Placing:
        placing = Placing(service.port, self._observer)
        placing.introduce(products)
        placing.closed(new_orders(WARM_UP, products=products), clients=self._clients)
        return placing

    def _moments(self, orders: Sequence[Order]) -> list[orders_stages.Moments]:
        ids = [order.order_id for order in orders]
        return orders_stages.read(self._observer, ids, self._topics.arrivals())

    def _cpu(self, service: Service) -> dict[str, float]:
        return {**service.cpu_seconds(), **_cpu(self._observer)}


class Runner(Protocol):
    """Run orders in this process, for a `with` block; at its end no connection is open."""

    title: str
    order_seconds: list[float]

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def run(self, orders: Sequence[Order]) -> None:
        """Run all orders."""


class Beside:
    """Run orders in this process, without the service.

    Args:
        runner: runs them.
        observer: at its database.
        at_least: orders, where fewer would be over too soon to be measured.
    """

    def __init__(self, runner: Runner, observer: Observer, *, at_least: int = 0) -> None:
        self.title = runner.title
        self._runner = runner
        self._at_least = at_least
        self._observer = observer

    def run(self, count: int, *, products: int) -> Result:
        """Run the orders, after a few to begin with."""
        count = max(count, self._at_least)
        with self._runner as runner:
            runner.run(new_orders(WARM_UP, products=products))
        orders = new_orders(count, products=products)
        work = self._work()
        with self._runner as runner:
            began, cpu = time.perf_counter(), _cpu(self._observer)
            runner.run(orders)
            seconds = time.perf_counter() - began
            cpu = _difference(_cpu(self._observer), cpu, orders=count)
        work = self._work().since(work, orders=count)
        return Result(
            count / seconds, work, cpu, {TRANSACTIONS: _milliseconds(runner.order_seconds)}
        )

    def _work(self) -> Work:
        self._observer.await_disconnected(self._observer.database)
        return Work.until_now(self._observer)


def _stages(load: Load, found: Sequence[orders_stages.Moments]) -> Stages:
    return {"POST answered": _milliseconds(load.answered), **orders_stages.durations(found)}


def _milliseconds(seconds: Sequence[float]) -> list[float]:
    return [1000 * each for each in seconds]


def _cpu(observer: Observer) -> dict[str, float]:
    """Return the CPU seconds of this process, and of the servers that run on this machine."""
    found = {
        "PostgreSQL": cpu_time.of_postgresql(observer.backend),
        "Kafka": cpu_time.of_kafka(),
        "load": time.process_time(),
    }
    return {name: seconds for name, seconds in found.items() if seconds is not None}


def _difference(
    after: Mapping[str, float], before: Mapping[str, float], *, orders: int
) -> dict[str, float]:
    """Return the milliseconds for one order."""
    return {name: (after[name] - before[name]) * 1000 / orders for name in after}
