"""A consumer that checks what it receives: is anything lost, out of order, or repeated."""

import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime

from brokers import BrokerUnavailable, Record, broker_from_url


class Reader:
    """Reads topics from their beginning on, in a thread.

    `out_of_order`: sequence numbers that came for the first time after a later one of their key.
    """

    def __init__(self, broker_url: str, topics: Sequence[str]) -> None:
        self._broker_url = broker_url
        self._topics = topics
        self._last: dict[bytes, int] = {}
        self._read_to: dict[tuple[str, int], int] = {}
        self.seen: set[int] = set()
        self.out_of_order: list[int] = []
        self.repeated: Counter[int] = Counter()
        self.latencies: list[tuple[float, str, float]] = []  # arrival, key, seconds since enqueue

    def sequences_of(self, key: str) -> int:
        """The highest that came of the key."""
        return self._last.get(key.encode(), 0)

    @contextmanager
    def running(self) -> Iterator["Reader"]:
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,), name="reader")
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join()

    def lost(self, committed: Collection[int]) -> set[int]:
        return set(committed) - self.seen

    def slowest(self, *, keys: Collection[str] = (), since: float = 0.0) -> float:
        """Seconds that a message took at most, of all keys or of these."""
        return max(
            (s for at, key, s in self.latencies if at >= since and (not keys or key in keys)),
            default=0.0,
        )

    def _run(self, stop: threading.Event) -> None:
        broker = broker_from_url(self._broker_url)
        with closing(broker.subscribe(self._topics, group="reader")) as subscription:
            while not stop.is_set():
                try:
                    records = subscription.receive(timeout=0.1, limit=2_000)
                except BrokerUnavailable:
                    stop.wait(0.2)
                    continue
                now = time.time()
                for record in records:
                    self._take(record, now)

    def _take(self, record: Record, now: float) -> None:
        place = record.topic, record.partition
        if record.offset <= self._read_to.get(place, -1):
            return  # the group was handed out anew: it is this reader that reads it twice
        self._read_to[place] = record.offset
        headers = dict(record.headers)
        sequence, key = int(headers["ce_sequence"]), record.key or b""
        if sequence in self.seen:
            self.repeated[sequence] += 1
            return
        self.seen.add(sequence)
        if sequence < self._last.get(key, 0):
            self.out_of_order.append(sequence)
        self._last[key] = max(sequence, self._last.get(key, 0))
        enqueued = datetime.fromisoformat(headers["ce_time"].decode()).timestamp()
        self.latencies.append((now, key.decode(), now - enqueued))
