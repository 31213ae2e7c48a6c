"""Test a running service under load: place many orders over HTTP, follow each to its end."""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import requests

OPEN = ("pending", "processing")
TIMEOUT = 30  # seconds per request
RETRY_PAUSE = 0.5
FOLLOWERS = 4  # few: to answer them costs the service time


@dataclass(slots=True)
class Summary:
    """Sum up a run.

    Attributes:
        answers: by HTTP status, how many orders got the answer; `no answer` counts as a status.
        ends: by order status, how many accepted orders stand there in the end.
        placing_seconds: until the last order was placed.
        ending_seconds: until the last order had ended.
    """

    answers: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    placing_seconds: float = 0.0
    ending_seconds: float = 0.0

    @property
    def all_accepted(self) -> bool:
        """Whether the service accepted every order."""
        return set(self.answers) <= {"200", "201", "202"}

    @property
    def all_ended(self) -> bool:
        """Whether the service accepted every order, and brought each to an end."""
        return self.all_accepted and not any(self.ends[status] for status in OPEN)


class LoadTest:
    """Place orders from a few threads.

    Args:
        url: the service's address.
        count: how many orders.
        rate: orders a second; None for as fast as possible.
        concurrency: requests at a time.
        product: the product's id.
        declined: share of the orders, 0 to 1, whose amount is over the simulated gateway's limit.
        retry_for: seconds to send an order again, under the same id, while the service is away.
        patience: seconds to wait for the last order's end.
        on_placed: called for each order placed.
        on_ended: called for each order followed to its end.
    """

    def __init__(
        self,
        url: str,
        *,
        count: int,
        rate: float | None,
        concurrency: int,
        product: str,
        declined: float,
        retry_for: float,
        patience: float,
        on_placed: Callable[[], None],
        on_ended: Callable[[], None],
    ) -> None:
        self._url = url.rstrip("/")
        self._count = count
        self._rate = rate
        self._concurrency = concurrency
        self._product = product
        self._declined = declined
        self._retry_for = retry_for
        self._patience = patience
        self._on_placed = on_placed
        self._on_ended = on_ended
        self._run = uuid.uuid4().hex[:8].upper()
        self._sessions = threading.local()
        self._summary = Summary()
        self._accepted: list[str] = []
        self._lock = threading.Lock()

    def run(self) -> Summary:
        """Place all orders, then follow all accepted ones."""
        began = time.monotonic()
        with ThreadPoolExecutor(self._concurrency) as pool:
            list(pool.map(lambda number: self._place(number, began), range(self._count)))
        self._summary.placing_seconds = time.monotonic() - began
        deadline = time.monotonic() + self._patience
        with ThreadPoolExecutor(FOLLOWERS) as pool:
            ends = pool.map(lambda order_id: self._follow(order_id, deadline), self._accepted)
            self._summary.ends.update(ends)
        self._summary.ending_seconds = time.monotonic() - began
        return self._summary

    def _place(self, number: int, began: float) -> None:
        """Place one order at its time, and count the answer."""
        if self._rate:
            time.sleep(max(0.0, began + number / self._rate - time.monotonic()))
        order_id = f"LOAD-{self._run}-{number:06d}"
        status = self._post(order_id, number)
        with self._lock:
            self._summary.answers[status] += 1
            if status in ("200", "201", "202"):
                self._accepted.append(order_id)
        self._on_placed()

    def _post(self, order_id: str, number: int) -> str:
        """Send an order, again while the service is away; return the status as text."""
        is_declined = int((number + 1) * self._declined) > int(number * self._declined)
        body = {
            "order_id": order_id,
            "user_id": f"USER-{number % 100}",
            "items": [{"id": self._product, "name": "Load", "quantity": 1}],
            "amount": 1500 if is_declined else 10 + number % 90,
        }
        deadline = time.monotonic() + self._retry_for
        while True:
            status = self._answer(body)
            if status not in ("503", "no answer") or time.monotonic() >= deadline:
                return status
            time.sleep(RETRY_PAUSE)

    def _answer(self, body: dict[str, object]) -> str:
        try:
            response = self._session().post(f"{self._url}/orders/", json=body, timeout=TIMEOUT)
        except requests.RequestException:
            return "no answer"
        return str(response.status_code)

    def _follow(self, order_id: str, deadline: float) -> str:
        """Ask for an order until it has ended or time is up; return the last status."""
        pause = 0.02
        status = "pending"
        while status in OPEN and time.monotonic() < deadline:
            try:
                response = self._session().get(f"{self._url}/orders/{order_id}/", timeout=TIMEOUT)
                status = response.json().get("status", status) if response.ok else status
            except requests.RequestException:
                pause = RETRY_PAUSE
            if status in OPEN:
                time.sleep(pause)
                pause = min(pause * 1.5, RETRY_PAUSE)
        self._on_ended()
        return status

    def _session(self) -> requests.Session:
        """Return the thread's own session."""
        if not hasattr(self._sessions, "session"):
            self._sessions.session = requests.Session()
        session: requests.Session = self._sessions.session
        return session
