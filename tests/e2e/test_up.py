"""`manage.py up` as a newcomer meets it, and as a machine treats it."""

import signal
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import requests

from config.serving.webserver import STOP_SECONDS
from tests import seed
from tests.e2e.service import SLOWEST, Service, until
from tests.problems import assert_problem
from tests.processes import refusal

PARALLEL = 50


def test_the_first_order_is_fulfilled(service: Service) -> None:
    accepted = service.post(seed.ORDER, X_Correlation_ID=seed.CORRELATION_ID)

    assert accepted.status_code == 202
    assert accepted.headers["X-Correlation-ID"] == seed.CORRELATION_ID
    until(lambda: service.order("ORD-001")["status"] == "fulfilled", timeout=30)
    assert service.order("ORD-001")["correlation_id"] == seed.CORRELATION_ID
    assert service.post(seed.ORDER).status_code == 200
    assert_problem(service.post(seed.order(amount=1)), 409)
    service.assert_audit_is_clean()


def stock_of(service: Service) -> list[Any]:
    return service.query(
        "SELECT product_id, received, on_hand, reserved, shipped FROM orders_product"
    )


def test_a_declined_order_is_rejected_and_takes_nothing(service: Service) -> None:
    before = stock_of(service)
    assert service.post(seed.order(amount=1500)).status_code == 202
    until(lambda: "ORD-001" in service.ended_orders(), timeout=30)

    order = service.order("ORD-001")
    assert order["status"] == "rejected"
    assert "payment declined" in order["reason"]
    assert stock_of(service) == before
    service.assert_audit_is_clean()


@pytest.mark.parametrize(("amount", "status"), [(99.99, "fulfilled"), (1500, "rejected")])
def test_waiting_brings_the_end_of_the_order(service: Service, amount: float, status: str) -> None:
    response = service.post(seed.order(amount=amount), Prefer="wait=30")

    assert response.status_code == 201
    assert response.json()["status"] == status
    assert response.headers["Preference-Applied"] == "wait=30"


def test_the_diagrams_of_the_two_endings_differ(service: Service) -> None:
    service.post(seed.order(order_id="GOOD"), Prefer="wait=30")
    service.post(seed.order(order_id="BAD", amount=1500), Prefer="wait=30")
    good, bad = (
        service.get(f"/orders/{name}/diagram/").json()["diagram"] for name in ("GOOD", "BAD")
    )

    assert "ship_order" in good
    assert "ship_order" not in bad


def test_many_orders_at_once_are_all_accepted(service: Service) -> None:
    together = threading.Barrier(PARALLEL)

    def place(number: int) -> tuple[int, float]:
        together.wait(10)
        began = time.monotonic()
        response = service.post(seed.order(order_id=f"ORD-{number}"))
        return response.status_code, time.monotonic() - began

    with ThreadPoolExecutor(PARALLEL) as pool:
        answers = list(pool.map(place, range(PARALLEL)))

    assert {status for status, _ in answers} == {202}
    assert max(took for _, took in answers) < 5 * SLOWEST
    until(lambda: len(service.ended_orders()), reaches=PARALLEL, timeout=30)
    assert "locked" not in service.output
    service.assert_audit_is_clean()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_told_to(service: Service, number: signal.Signals) -> None:
    service.signal(number)

    assert service.wait() == 0
    assert service.output.endswith("Stopped.\n")
    assert "Traceback" not in service.output


def test_stopping_finishes_what_runs(stopped: Service) -> None:
    stopped.start(PAYMENT_GATEWAY_URL="simulated://?delay=1")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(stopped.post, seed.ORDER, Prefer="wait=30")
        until(lambda: stopped.query("SELECT 1 FROM orders_order"), timeout=10)
        stopped.signal(signal.SIGTERM)

        assert waiting.result().status_code == 201
    assert stopped.wait() == 0


def test_an_idle_connection_does_not_hold_it_up(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port)):
        service.get("/health/")
        began = time.monotonic()
        service.signal(signal.SIGTERM)

        assert service.wait() == 0
        assert time.monotonic() - began < STOP_SECONDS, "it waited for the connection"


def test_what_is_stored_is_there_after_a_restart(service: Service) -> None:
    service.post(seed.ORDER, Prefer="wait=30")
    stock = stock_of(service)
    service.signal(signal.SIGTERM)
    service.wait()
    service.start()

    assert service.order("ORD-001")["status"] == "fulfilled"
    assert stock_of(service) == stock


def test_a_taken_port_is_refused(stopped: Service) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", stopped.port))
        listener.listen()
        line = refusal(stopped.manage("up", "--port", str(stopped.port)))

    assert str(stopped.port) in line
    assert "choose another port" in line


def test_a_second_one_on_the_same_file_is_refused(service: Service) -> None:
    line = refusal(service.manage("up", "--port", str(service.port)))

    assert f"`manage.py up` (process {service.process.pid}) works on" in line
    assert "db.sqlite3 already: stop it first" in line
    assert service.get("/health/").ok


UNREADABLE_MESSAGE = """
    INSERT INTO outbox_message (message_id, topic, key, key_hash, type, payload, headers,
                                correlation_id, traceparent, created_at)
    VALUES ('no id', 't', 'k', 1, 't', x'7b7d', '{}', '', '', '2026-01-01')
"""
UNREADABLE_SAGA = """
    UPDATE sagas_saga SET id = 'no id', status = 'pending', next_run_at = '2026-01-01'
"""


def test_a_part_that_dies_ends_the_whole(service: Service) -> None:
    service.post(seed.ORDER, Prefer="wait=30")
    service.query(UNREADABLE_MESSAGE)

    assert service.wait() not in (0, None)
    assert "stopped, because this part died: relay" in service.output.splitlines()[-1]


def test_a_saga_that_cannot_be_read_ends_nothing(service: Service) -> None:
    service.post(seed.ORDER, Prefer="wait=30")
    service.query(UNREADABLE_SAGA)

    answer = service.post(seed.order(order_id="ORD-002"), Prefer="wait=30")
    assert answer.json()["status"] == "fulfilled"


class Customer(threading.Thread):
    """Places orders one after the other, and keeps the ids of those that were accepted."""

    def __init__(self, service: Service, name: str) -> None:
        super().__init__(name=name)
        self.accepted: list[str] = []
        self._service = service
        self._over = threading.Event()

    def run(self) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            order_id = f"{self.name}-{number}"
            amount = 1500 if number % 3 == 0 else 10
            with suppress(requests.RequestException):
                if self._service.post(seed.order(order_id=order_id, amount=amount)).ok:
                    self.accepted.append(order_id)
            self._over.wait(0.005)

    def stop(self) -> None:
        self._over.set()
        self.join()


def test_no_accepted_order_is_forgotten_when_all_is_killed(stopped: Service) -> None:
    kill_while_customers_order(stopped, kills=3, count=100)


@pytest.mark.soak
def test_of_five_hundred_accepted_orders_none_is_forgotten(stopped: Service) -> None:
    kill_while_customers_order(stopped, kills=10, count=500)


def kill_while_customers_order(service: Service, *, kills: int, count: int) -> None:
    """Kill the whole and start it again, each time after as many more orders."""
    # Payments take a while, so that many sagas are under way at any time.
    service.start(PAYMENT_GATEWAY_URL="simulated://?delay=0.05")
    customers = [Customer(service, f"ORD-{name}") for name in "ABCD"]
    for customer in customers:
        customer.start()
    try:
        for kill in range(1, kills + 1):
            until(lambda: accepted_by(customers), reaches=kill * count // (kills + 1), timeout=60)
            service.kill_group()
            service.start()
        until(lambda: accepted_by(customers), reaches=count, timeout=60)
    finally:
        for customer in customers:
            customer.stop()

    orders = {order_id for customer in customers for order_id in customer.accepted}
    until(lambda: orders <= service.ended_orders(), timeout=60)
    statuses = dict(service.query("SELECT status, count(*) FROM orders_order GROUP BY status"))
    assert set(statuses) == {"fulfilled", "rejected"}
    service.assert_audit_is_clean()


def accepted_by(customers: Sequence[Customer]) -> int:
    return sum(len(customer.accepted) for customer in customers)
