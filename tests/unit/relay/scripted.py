"""A broker and lanes that do as the test says, and relays for them."""

import json
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any

from django.db import transaction

from brokers import (
    Acknowledged,
    Broker,
    BrokerUnavailable,
    Failed,
    Message,
    Refused,
    Report,
    Subscription,
)
from outbox import enqueue
from outbox.models import LANES, OutboxMessage, ParkedMessage
from relay.assembly import assemble_relay
from relay.loop import Relay
from relay.store import Store
from relay.timing import SQLITE_TIMING, Timing
from saga_runtime.backoff import Backoff

SOURCE = "/tests"
QUICK = Timing(
    outage=Backoff(first=0.001, longest=0.002),
    refusal=Backoff(first=0.001, longest=0.01),
    longest_poll=SQLITE_TIMING.longest_poll,
)
"""Pauses of the relays of tests."""


def put(*keys: str, topic: str = "shop.events") -> list[int]:
    """One message after the other, each with its number as payload; returns their ids."""
    with transaction.atomic():
        return [
            enqueue(topic=topic, key=key, type="shop.sold", payload=number).id
            for number, key in enumerate(keys)
        ]


class Kafka:
    """A broker that does as the test says.

    Like a real one it gathers messages for a moment: `judge` is given what was published until
    somebody waited for reports, and answers each. Where it is `slow`, every second wait brings one
    report.
    """

    in_process = False
    has_transactions = False
    name = "kafka://of-the-tests"

    def __init__(
        self,
        judge: Callable[[Sequence[Message]], Sequence[str]] = lambda batch: ["ok"] * len(batch),
    ) -> None:
        self.judge = judge
        self.away = False
        self.slow = False
        self.accepted: list[Message] = []
        self.closed = 0
        self.silent = False
        self._calls = 0
        self._queue: list[tuple[int, Message]] = []
        self._given_up: list[Report] = []

    def check(self) -> None:
        raise NotImplementedError

    def ensure_topics(self, topics: Sequence[str]) -> None:
        raise NotImplementedError

    def subscribe(self, topics: Sequence[str], *, group: str) -> Subscription:
        raise NotImplementedError

    def publisher(self, *, transactional_id: str | None = None) -> "Kafka":  # noqa: ARG002
        return self

    def publish(self, message: Message, *, token: int) -> bool:
        if self.away:
            raise BrokerUnavailable("nobody there")
        self._queue.append((token, message))
        return True

    def reports(self, *, timeout: float) -> list[Report]:
        given_up, self._given_up = self._given_up, []
        if given_up or self.silent or not timeout:  # nothing is judged before somebody waits for it
            return given_up
        queue, self._queue = self._queue, []
        if self.slow:
            self._calls += 1
            queue, self._queue = queue[: self._calls % 2], queue[self._calls % 2 :]
        if not queue:
            return []
        verdicts = self.judge([message for _, message in queue])
        return [
            self._report(token, message, verdict)
            for (token, message), verdict in zip(queue, verdicts, strict=True)
        ]

    def commit(self, *, timeout: float) -> None:
        raise NotImplementedError

    def purge(self) -> None:
        self._given_up += [Failed(token, "given up") for token, _ in self._queue]
        self._queue.clear()

    def close(self) -> None:
        self.closed += 1

    def order_of(self, key: str) -> list[int]:
        return [json.loads(message.value) for message in self.accepted if message.key == key]

    def _report(self, token: int, message: Message, verdict: str) -> Report:
        match verdict:
            case "ok":
                self.accepted.append(message)
                return Acknowledged(token)
            case "refuse" | "unsent":
                return Refused(token, "too large", unsent=verdict == "unsent")
            case _:
                lasting = verdict == "set the clock"
                return Failed(token, verdict, only_it=verdict == "not now", lasting=lasting)


def make_relay(
    broker: Broker,
    *,
    batch_size: int = 1000,
    timing: Timing = QUICK,
    **options: Any,
) -> Relay:
    """A relay whose pauses are short, each as short as it may be."""
    return assemble_relay(
        broker,
        source=SOURCE,
        batch_size=batch_size,
        timing=timing,
        jitter=lambda: 0,
        **options,
    )


def drain(broker: Broker, *, batch_size: int = 500, store: Store | None = None) -> int:
    return make_relay(broker, batch_size=batch_size, store=store).drain(threading.Event())


def parked() -> list[tuple[str, int | str]]:
    return [(row.key, json.loads(bytes(row.payload))) for row in ParkedMessage.objects.all()]


def left() -> int:
    return OutboxMessage.objects.count()


class SomeLanes:
    """Leases that end when the test says so."""

    def __init__(self) -> None:
        self.held = dict.fromkeys(range(LANES), 1)
        self.draining: set[int] = set()
        self.taken_by_others: set[int] = set()

    def tend(self, *, busy: Collection[int]) -> set[int]:  # noqa: ARG002 - nothing is busy
        lost, self.taken_by_others = self.taken_by_others, set()
        for lane in lost:
            del self.held[lane]
        return lost

    def tend_soon(self) -> None:
        raise NotImplementedError

    def release(self) -> None:
        """Nobody waits for them."""
