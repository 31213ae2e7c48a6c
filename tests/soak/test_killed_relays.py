"""Relays come, are killed, sleep past their lease and wake again, while eight writers write."""

import random
import time

import pytest

from tests.e2e.service import until
from tests.relaying.reader import Reader
from tests.relaying.relays import RelayProcess
from tests.relaying.stage import Stage
from tests.soak.scale import seconds

pytestmark = [
    pytest.mark.soak,
    pytest.mark.postgres,
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

SECONDS = seconds(60, least=20)
RELAYS = 3
PAST_THE_LEASE = (11.0, 14.0)  # seconds
RATE = 600  # messages a second
KEYS = 50


class Trouble:
    """Starts, kills, stops and continues relays, one of the three each time.

    `may_repeat`: what was in the outbox just after each kill and each stop. What was in flight is
    among it; nothing else may come twice.
    """

    def __init__(self, stage: Stage, *, client: str, seed: int) -> None:
        self._stage = stage
        self._client = client
        self._chance = random.Random(seed)
        self._paused: dict[RelayProcess, float] = {}
        self._running = [self._start() for _ in range(RELAYS)]
        for relay in self._running:
            relay.await_ready()
        self.may_repeat: set[int] = set()
        self.done: dict[str, int] = {"started": RELAYS, "killed": 0, "stopped": 0, "continued": 0}

    def make(self) -> None:
        now = time.monotonic()
        for relay in [each for each, until_ in self._paused.items() if until_ <= now]:
            del self._paused[relay]
            relay.go_on()
            self._running.append(relay)
            self.done["continued"] += 1
        if len(self._running) + len(self._paused) < RELAYS:
            self._running.append(self._start())
            self.done["started"] += 1
        elif len(ready := [each for each in self._running if each.is_ready]) > 1:
            victim = self._chance.choice(ready)
            self._running.remove(victim)
            if self._chance.random() < 0.5:
                victim.kill()
                self.done["killed"] += 1
            else:
                victim.pause()
                self._paused[victim] = now + self._chance.uniform(*PAST_THE_LEASE)
                self.done["stopped"] += 1
            self.may_repeat |= self._stage.waiting()

    def end(self) -> None:
        for relay in self._paused:
            relay.go_on()
            self.done["continued"] += 1
        self._paused.clear()

    def _start(self) -> RelayProcess:
        return self._stage.relay(SAGAZ_KAFKA_CLIENT=self._client)


@pytest.mark.parametrize("client", ["kafka-python", "librdkafka"])
def test_nothing_is_lost_and_no_key_out_of_order(stage: Stage, client: str) -> None:
    seed = random.SystemRandom().randrange(10_000)
    options = {"seconds": SECONDS, "keys": KEYS, "rate": RATE, "linger": 0.005}
    with stage.reader().running() as reader:
        trouble = Trouble(stage, client=client, seed=seed)
        with stage.writing(**options) as writing:
            chance = random.Random(seed + 1)
            while not writing.is_over:
                trouble.make()
                time.sleep(chance.uniform(1.0, 3.0))
        trouble.end()
        committed = writing.committed()
        until(lambda: not stage.waiting(), timeout=120)
        until(lambda: not reader.lost(committed), timeout=30)
    report(client, seed, committed, reader, trouble)
    assert set(committed) == reader.seen
    assert reader.out_of_order == []
    assert set(reader.repeated) <= trouble.may_repeat
    assert stage.query("SELECT count(*) FROM outbox_parked") == [(0,)]
    assert "Traceback" not in stage.logs()
    assert min(trouble.done["killed"], trouble.done["continued"]) > 0


def report(client: str, seed: int, committed: list[int], reader: Reader, trouble: Trouble) -> None:
    done = ", ".join(f"{count} {what}" for what, count in trouble.done.items())
    print(
        f"\n{client}: {len(committed)} messages of {KEYS} keys in {SECONDS:.0f} s (seed {seed});"
        f" relays: {done}\n"
        f"lost {len(reader.lost(committed))}, out of order {len(reader.out_of_order)},"
        f" repeated {reader.repeated.total()}"
        f" (of {len(trouble.may_repeat)} that were in the outbox at a kill or stop),"
        f" longest wait {reader.slowest():.1f} s"
    )
