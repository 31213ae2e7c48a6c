"""Blows to a service: processes are killed or put to sleep past their lease, servers go away.

All of it is drawn before the run, from one seed. What a blow meets depends on what runs then.
"""

import heapq
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

from tests.e2e.full_service import LEASE, FullService, Process, running_processes
from tests.relaying.relays import RelayProcess
from tests.services import Server

# Parts of the service, and how often each is met.
PARTS = {"web": 2, "relay": 3, "consumer": 4}
SHARE_KILLED = 0.6
# Seconds asleep: consumers past the lease of their sagas, some past Kafka's session of 10 s, too;
# relays past the lease of their lanes.
ASLEEP = {"web": (1.0, 5.0), "relay": (11.0, 14.0), "consumer": (2.0 * LEASE, 14.0)}
AWAY = (0.0, 6.0)  # seconds
HARD = {"postgres": ("SIGKILL", "SIGQUIT"), "kafka": ("SIGKILL",)}  # SIGQUIT: "immediate"
ORDERLY = "orderly"
RELAY = "run_outbox_relay"


@dataclass(frozen=True, slots=True)
class Blow:
    """One blow.

    Attributes:
        after: how many orders have ended by then.
        target: a part of the service, or a server.
        how: `killed` or `asleep`, and of a server the signal, or orderly.
        seconds: until a part goes on, or a server is started.
        which: from 0 to 1, which of the processes.
    """

    after: int
    target: str
    how: str
    seconds: float
    which: float


def draw(chance: random.Random, *, orders: int, kills: int, restarts: int) -> list[Blow]:
    """Draw all blows of a run, the last one first.

    They are so many orders apart. Half of those that follow a server's end come while it is away.
    """
    parts = chance.choices(list(PARTS), weights=list(PARTS.values()), k=kills)
    hits = [(part, "killed" if chance.random() < SHARE_KILLED else "asleep") for part in parts]
    for server, hard in HARD.items():
        # Every other one is hard, the first of them at any rate.
        hits += [(server, chance.choice(hard) if n % 2 == 0 else ORDERLY) for n in range(restarts)]
    chance.shuffle(hits)
    blows: list[Blow] = []
    for number, (target, how) in enumerate(hits, start=1):
        after = orders * number // (len(hits) + 1)
        if blows and blows[-1].target in HARD and target in PARTS and chance.random() < 0.5:
            after = blows[-1].after
        seconds = chance.uniform(*(AWAY if target in HARD else ASLEEP[target]))
        blows.append(Blow(after, target, how, seconds, chance.random()))
    return blows[::-1]


class Blows:
    """Deal the blows, and undo what passes: processes go on, servers and killed relays start again.

    Args:
        blows: as `draw()` gives them.
        start_relay: starts a relay beside the service's own, which its supervisor keeps running.
        servers: by their names.

    Attributes:
        dealt: how many, by target and kind.
    """

    def __init__(
        self,
        service: FullService,
        blows: list[Blow],
        *,
        start_relay: Callable[[], RelayProcess],
        servers: Mapping[str, Server],
    ) -> None:
        self._service = service
        self._blows = blows
        self._start_relay = start_relay
        self._relay = start_relay()
        self._servers = servers
        self._numbers = count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._asleep: set[int] = set()
        self._away: set[str] = set()
        self.dealt: Counter[tuple[str, str]] = Counter()

    @property
    def are_over(self) -> bool:
        return not self._blows and not self._due

    def deal(self, ended: int) -> None:
        """Undo what is due, and deal at most one blow.

        Args:
            ended: how many orders have ended.
        """
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[-1]()
        if not self._relay.is_running:
            self._relay = self._start_relay()
        if self._blows and self._blows[-1].after <= ended and self._strike(self._blows[-1]):
            struck = self._blows.pop()
            self.dealt[struck.target, struck.how] += 1

    def undo(self) -> None:
        """Undo whatever still lasts."""
        for _, _, undo in sorted(self._due):
            undo()
        self._due.clear()

    def _strike(self, blow: Blow) -> bool:
        """Tell whether it has met something."""
        if blow.target in self._servers:
            return self._send_away(blow)
        met = self._victims(blow.target, asleep=blow.how == "asleep")
        if not met:
            return False  # all are asleep, or not yet started again: it waits
        victims = met[int(blow.which * len(met))]
        for victim in victims:
            with suppress(ProcessLookupError):
                victim.signal(signal.SIGKILL if blow.how == "killed" else signal.SIGSTOP)
        if blow.how == "asleep":
            pids = {victim.pid for victim in victims}
            self._asleep |= pids
            self._undo_later(blow.seconds, lambda: self._wake(pids))
        return True

    def _victims(self, part: str, *, asleep: bool) -> list[list[Process]]:
        """What a blow may meet: each time one process, or those that sleep together."""
        if part == "web":
            masters = self._service.children("gunicorn")
            pids = {master.pid for master in masters}
            workers = [each for each in self._service.processes() if each.parent in pids]
            web = [*masters, *workers]
            met = [web] if asleep and web else [[each] for each in web]
        elif part == "relay":
            beside = [each for each in running_processes() if each.pid == self._relay.pid]
            met = [[each] for each in (*self._service.children(RELAY), *beside)]
        else:
            met = [[each] for each in self._service.consumers()]
        return [each for each in met if not self._asleep & {victim.pid for victim in each}]

    def _send_away(self, blow: Blow) -> bool:
        if blow.target in self._away:
            return False
        server = self._servers[blow.target]
        if blow.how == ORDERLY:
            server.stop()
        else:
            server.kill(blow.how)
        self._away.add(blow.target)
        self._undo_later(blow.seconds, lambda: self._bring_back(blow.target))
        return True

    def _bring_back(self, server: str) -> None:
        self._servers[server].start()
        self._away.remove(server)

    def _wake(self, pids: set[int]) -> None:
        self._asleep -= pids
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _undo_later(self, seconds: float, undo: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), undo))
