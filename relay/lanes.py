"""Which lanes this relay may publish: leases by the database's clock, each claim with a new epoch.

Every live relay keeps its share, ⌈lanes / live relays⌉, and drains a lane before it gives it up.
What some of them may not take is shared among the others.
Lease rows, no session locks: those break behind a transaction pooler.
"""

import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from django.db import connection, transaction

from outbox.models import LANES
from relay.timing import POSTGRESQL_TIMING
from saga_runtime.logs import get_logger

logger = get_logger(__name__)

# One round trip, and so one transaction: a sign of life, the lanes that are this relay's, and of
# the free ones as many as are missing to its share.
_SHARE = f"""
SELECT least(%(most)s, coalesce(min(level), {LANES})) AS lanes
FROM generate_series(1, {LANES}) AS level
WHERE {LANES} <= (
    SELECT sum(least(lanes_max, level)) FROM outbox_relay WHERE until >= statement_timestamp()
)
"""  # noqa: S608 - constants
_RENEW_AND_CLAIM = f"""
INSERT INTO outbox_relay (id, lanes_max, started_at, until)
VALUES (%(owner)s, %(most)s, statement_timestamp(),
    statement_timestamp() + make_interval(secs => %(lease)s))
ON CONFLICT (id) DO UPDATE SET until = excluded.until;

DELETE FROM outbox_relay WHERE until < statement_timestamp() - interval '1 hour';

INSERT INTO outbox_lane (lane, owner, epoch, until)
SELECT lane, '', 0, statement_timestamp() FROM generate_series(0, {LANES} - 1) AS lane
ON CONFLICT DO NOTHING;

UPDATE outbox_lane SET until = statement_timestamp() + make_interval(secs => %(lease)s)
WHERE owner = %(owner)s;

WITH free AS MATERIALIZED (
    SELECT lane FROM outbox_lane
    WHERE owner = '' OR until < statement_timestamp()
    ORDER BY lane
    LIMIT greatest(0, ({_SHARE}) - (SELECT count(*) FROM outbox_lane WHERE owner = %(owner)s))
    FOR UPDATE SKIP LOCKED
)
UPDATE outbox_lane SET owner = %(owner)s, epoch = epoch + 1,
    until = statement_timestamp() + make_interval(secs => %(lease)s)
WHERE lane IN (SELECT lane FROM free);

SELECT share.lanes, lane, epoch
FROM ({_SHARE}) AS share LEFT JOIN outbox_lane ON owner = %(owner)s
"""  # noqa: S608 - constants


class Lanes(Protocol):
    @property
    def held(self) -> Mapping[int, int]:
        """The lanes that may be read, each with the epoch under which it is held."""

    @property
    def leaving(self) -> Collection[int]:
        """Those of them from which nothing new is to be read."""

    def tend(self, *, busy: Collection[int]) -> set[int]:
        """Claim, renew and give up what is due; returns the lanes that others have taken.

        Args:
            busy: lanes with something in flight; they are not given up.
        """

    def soon(self) -> None:
        """Something has changed among the relays: tend at the next opportunity."""

    def release(self) -> None:
        """Give up every lane, so that another relay can take it at once."""


class EveryLane:
    """SQLite has one relay, which has every lane."""

    held: Mapping[int, int] = dict.fromkeys(range(LANES), 0)
    leaving: Collection[int] = ()

    def tend(self, *, busy: Collection[int]) -> set[int]:  # noqa: ARG002 - nothing is given up
        return set()

    def soon(self) -> None:
        """There is no other relay."""

    def release(self) -> None:
        """There is no other relay."""


class LeasedLanes:
    """Lanes leased in `outbox_lane`.

    Args:
        owner: this relay's name, unlike any other's.
        lease: seconds that a lane stays this relay's without a sign of life.
        most: how many lanes it takes at most.
    """

    def __init__(
        self,
        owner: str,
        *,
        lease: float = POSTGRESQL_TIMING.lease,
        most: int = LANES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._owner = owner
        self._lease = lease
        self._most = most
        self._clock = clock
        self._due = 0.0
        self._valid_until = 0.0
        self._known: dict[int, int] = {}
        self.held: dict[int, int] = {}
        self.leaving: set[int] = set()

    def soon(self) -> None:
        self._due = 0.0

    def tend(self, *, busy: Collection[int]) -> set[int]:
        now = self._clock()
        if now >= self._valid_until:
            # Others may have them by now; what the database says of them is seen below.
            self.held, self.leaving = {}, set()
        idle = self.leaving.difference(busy)
        if now < self._due and not idle and self.held:
            return set()
        before = set(self.held)
        self._give_up(idle)
        share = self._renew_and_claim()
        self._valid_until = now + self._lease
        self._due = now + self._lease / 3
        self.leaving &= set(self.held)
        surplus = len(self.held) - len(self.leaving) - share
        if surplus > 0:
            self.leaving |= set(sorted(set(self.held) - self.leaving)[-surplus:])
        if new := set(self.held) - before:
            logger.info("took %d lane(s)", len(new))
        return self._lost(given_up=idle)

    def release(self) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                "UPDATE outbox_lane SET owner = '', until = statement_timestamp() WHERE owner = %s",
                [self._owner],
            )
            cursor.execute("DELETE FROM outbox_relay WHERE id = %s", [self._owner])
        self.held, self.leaving, self._known = {}, set(), {}

    def _lost(self, *, given_up: Collection[int]) -> set[int]:
        """Of the lanes that it last knew to be its own, those that others have or have had since:
        a new epoch says so, also where the lane has come back."""
        known, self._known = self._known, dict(self.held)
        return {
            lane
            for lane, epoch in known.items()
            if lane not in given_up and self.held.get(lane) != epoch
        }

    def _give_up(self, lanes: Collection[int]) -> None:
        if not lanes:
            return
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE outbox_lane SET owner = '', until = statement_timestamp()"
                " WHERE owner = %s AND lane = ANY(%s)",
                [self._owner, list(lanes)],
            )
        for lane in lanes:
            self.held.pop(lane, None)
        logger.info("gave up %d lane(s) to other relays", len(lanes))

    def _renew_and_claim(self) -> int:
        """What the database has of this relay's is held, and nothing else. Returns its share."""
        params: dict[str, str | float] = {
            "owner": self._owner,
            "lease": self._lease,
            "most": self._most,
        }
        with connection.cursor() as cursor:
            cursor.execute(_RENEW_AND_CLAIM, params)
            while cursor.cursor.nextset():
                pass
            found = cursor.cursor.fetchall()
        self.held = {lane: epoch for _, lane, epoch in found if lane is not None}
        return int(found[0][0])
