"""Clients that place numbered orders, and cancel some. Each asks again until it has an answer."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests

from tests.e2e.service import Json

AT_A_TIME = 16
TIMEOUT = 20.0  # seconds for an answer, then it is asked again: a stopped process answers nobody
PATIENCE = 900.0  # seconds until an order counts as refused
PAUSE = 0.2
AWAY = 503
TOO_LATE = 409
CANCELS = 3  # of an order that is cancelled, each a message of the order's key

# What becomes of an order, by the last digit of its number. A cancel may come too late.
DECLINED, CANCELLED, WAITED_FOR = 3, 7, 5
ORDER_ID = "SOAK-{}"


class Clients:
    """Place the orders 0 to `count` - 1, and no more than are allowed.

    What they keep does not grow with the number of orders.

    Attributes:
        answers: how many requests were answered by which status; 0 for those without an answer.
        failed: answers that no client expects.
    """

    def __init__(self, url: str, *, count: int) -> None:
        self._url = url
        self._count = count
        self._change = threading.Condition()
        self._next = self._allowed = 0
        self._is_over = False
        self.placed = 0
        self.answers: Counter[int] = Counter()
        self.failed: list[str] = []

    @contextmanager
    def running(self) -> Iterator["Clients"]:
        """At work until the end of the block; `is_done` tells whether they are through."""
        threads = [threading.Thread(target=self._work) for _ in range(AT_A_TIME)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            with self._change:
                self._is_over = True
                self._change.notify_all()
            for thread in threads:
                thread.join()

    @property
    def is_done(self) -> bool:
        return self.placed == self._count

    def allow(self, count: int) -> None:
        """Go on up to so many orders."""
        with self._change:
            self._allowed = min(max(count, self._allowed), self._count)
            self._change.notify_all()

    def _work(self) -> None:
        with requests.Session() as session:
            while (number := self._take()) is not None:
                try:
                    self._place(session, number)
                except Exception as error:  # noqa: BLE001 - for the test's own thread to tell
                    self.failed.append(f"{ORDER_ID.format(number)}: {error}")
                    return

    def _take(self) -> int | None:
        """The next order's number, once it is allowed; None at the end."""
        with self._change:
            self._change.wait_for(lambda: self._is_over or self._next < self._allowed)
            if self._is_over:
                return None
            self._next += 1
            return self._next - 1

    def _place(self, session: requests.Session, number: int) -> None:
        headers = {"Prefer": f"wait={seconds}"} if (seconds := waited(number)) else {}
        answer = self._ask(session, "/orders/", order(number), headers)
        assert answer.status_code in (200, 201, 202), answer.text
        assert answer.json()["order_id"] == ORDER_ID.format(number), answer.text
        if answer.status_code == 201:
            assert answer.json()["status"] in ("fulfilled", "rejected"), answer.text
        if number % 10 == CANCELLED:
            for _ in range(CANCELS):
                cancel = self._ask(session, f"/orders/{ORDER_ID.format(number)}/cancel/", {}, {})
                assert cancel.status_code in (202, TOO_LATE), cancel.text
        with self._change:
            self.placed += 1

    def _ask(
        self, session: requests.Session, path: str, body: Json, headers: dict[str, str]
    ) -> requests.Response:
        """Send it until it is answered."""
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._sent(session, path, body, headers)
            with self._change:
                self.answers[0 if answer is None else answer.status_code] += 1
            if answer is not None and answer.status_code != AWAY:
                return answer
            assert time.monotonic() < deadline, "the service is away"
            assert not self._is_over, "not answered before the end"
            time.sleep(PAUSE)

    def _sent(
        self, session: requests.Session, path: str, body: Json, headers: dict[str, str]
    ) -> requests.Response | None:
        try:
            return session.post(self._url + path, json=body, headers=headers, timeout=TIMEOUT)
        except requests.RequestException:
            return None


def waited(number: int) -> int:
    """The seconds that a client waits for the order's end."""
    if number % 10 == CANCELLED:
        return number // 10 % 5  # then it is cancelled, however far it is
    return 20 if number % 10 == WAITED_FOR else 0


def order(number: int) -> dict[str, Any]:
    """Of one product or of two, which every order of two locks."""
    products = ("ITEM-1", "ITEM-2") if number % 2 else ("ITEM-1",)
    return {
        "order_id": ORDER_ID.format(number),
        "user_id": f"USER-{number % 100}",
        "items": [
            {"id": product, "name": "Soaked", "quantity": 1 + number % 3} for product in products
        ],
        "amount": 1500 if number % 10 == DECLINED else round(10.05 + number % 90, 2),
    }
