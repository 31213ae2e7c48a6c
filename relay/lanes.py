"""Lease lanes to relays, by the database's clock; each claim of a lane has a new epoch.

Every live relay keeps a share, ⌈lanes / live relays⌉, and drains a lane before giving the lane
up. Lanes that some relays may not take are shared among the rest. Leases are rows and no locks of
a session: such locks break behind a transaction pooler.
"""

import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from django.db import connection, transaction

from outbox.models import LANES
from relay.timing import POSTGRESQL_TIMING
from saga_runtime.logs import get_logger

logger = get_logger(__name__)

# The smallest level up to which all live relays together take all lanes, where each takes as many
# as it may, and none more than the level; at most as many as this relay may take.
_SHARE = f"""
SELECT least(%(most)s, coalesce(min(level), {LANES})) AS lanes
FROM generate_series(1, {LANES}) AS level
WHERE {LANES} <= (
    SELECT sum(least(lanes_max, level)) FROM outbox_relay WHERE until >= statement_timestamp()
)
"""  # noqa: S608 - constants
# One round trip, and so one transaction: a sign of life, the lanes that are this relay's, and of
# the free lanes as many as are missing to the relay's share.
_RENEW_AND_CLAIM = (
    # The sign of life, which counts this relay among those that share.
    """
INSERT INTO outbox_relay (id, lanes_max, started_at, until)
VALUES (%(owner)s, %(most)s, statement_timestamp(),
    statement_timestamp() + make_interval(secs => %(lease)s))
ON CONFLICT (id) DO UPDATE SET until = excluded.until;
"""  # noqa: S608 - constants
    # Relays that have died: each start has a name of its own, and leaves a row behind.
    """
DELETE FROM outbox_relay WHERE until < statement_timestamp() - interval '1 hour';
"""
    # A new database has no lanes yet.
    f"""
INSERT INTO outbox_lane (lane, owner, epoch, until)
SELECT lane, '', 0, statement_timestamp() FROM generate_series(0, {LANES} - 1) AS lane
ON CONFLICT DO NOTHING;
"""
    # Renewed also past its end, as long as nobody has claimed the lane: the epoch stays.
    """
UPDATE outbox_lane SET until = statement_timestamp() + make_interval(secs => %(lease)s)
WHERE owner = %(owner)s;
"""
    # Lanes of nobody, or of a dead relay; those that another relay claims just now are skipped.
    f"""
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
"""
    # The share, in each row, and the lanes held; one row without a lane where there is none.
    f"""
SELECT share.lanes, lane, epoch
FROM ({_SHARE}) AS share LEFT JOIN outbox_lane ON owner = %(owner)s
"""
)


class Lanes(Protocol):
    """Hold lanes for a relay."""

    @property
    def held(self) -> Mapping[int, int]:
        """Return the lanes to read, each with the epoch of the claim."""

    @property
    def draining(self) -> Collection[int]:
        """Return the held lanes from which nothing new shall be read."""

    def tend(self, *, busy: Collection[int]) -> set[int]:
        """Claim, renew and give up the lanes that are due.

        Args:
            busy: lanes with something in flight; they are not given up.

        Returns:
            The lanes taken by other relays since the last call.
        """

    def tend_soon(self) -> None:
        """Let the next `tend()` ask the database, because something has changed among relays."""

    def release(self) -> None:
        """Give up every lane, for other relays to take at once."""


class EveryLane:
    """Hold every lane, for the only relay on SQLite."""

    held: Mapping[int, int] = dict.fromkeys(range(LANES), 0)
    draining: Collection[int] = ()

    def tend(self, *, busy: Collection[int]) -> set[int]:  # noqa: ARG002 - nothing is given up
        """Do nothing: no lane is ever lost."""
        return set()

    def tend_soon(self) -> None:
        """Do nothing: there is no other relay."""

    def release(self) -> None:
        """Do nothing: there is no other relay."""


class LeasedLanes:
    """Hold lanes leased in `outbox_lane`.

    Args:
        owner: the relay's name, different for each relay.
        lease: seconds for which a lane stays with the relay without a sign of life.
        lanes_max: how many lanes the relay takes at most.
        clock: seconds; says when to ask the database. The leases go by the database's clock.

    Attributes:
        held: see `Lanes`.
        draining: see `Lanes`.
    """

    def __init__(
        self,
        owner: str,
        *,
        lease: float = POSTGRESQL_TIMING.lease,
        lanes_max: int = LANES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._owner = owner
        self._lease = lease
        self._lanes_max = lanes_max
        self._clock = clock
        self._due = 0.0
        self._valid_until = 0.0
        self._known: dict[int, int] = {}
        self.held: dict[int, int] = {}
        self.draining: set[int] = set()

    def tend_soon(self) -> None:
        """Let the next `tend()` ask the database."""
        self._due = 0.0

    def tend(self, *, busy: Collection[int]) -> set[int]:
        """Claim, renew and give up lanes, after a third of a lease; see `Lanes.tend()`."""
        now = self._clock()
        if now >= self._valid_until:
            # Other relays may have the lanes by now; what the database says of them comes below.
            self.held, self.draining = {}, set()
        idle = self.draining.difference(busy)
        if now < self._due and not idle and self.held:
            return set()
        before = set(self.held)
        # Given up before the claim, so that the claim does not count them.
        self._give_up(idle)
        share = self._renew_and_claim()
        # By `now`, which was before the database reckoned the lease: on the safe side.
        self._valid_until = now + self._lease
        self._due = now + self._lease / 3
        self.draining &= set(self.held)
        surplus = len(self.held) - len(self.draining) - share
        if surplus > 0:
            self.draining |= set(sorted(set(self.held) - self.draining)[-surplus:])
        if new := set(self.held) - before:
            logger.info("took %d lane(s)", len(new))
        return self._lost(given_up=idle)

    def release(self) -> None:
        """Give up every lane, and the share in lanes."""
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                "UPDATE outbox_lane SET owner = '', until = statement_timestamp() WHERE owner = %s",
                [self._owner],
            )
            cursor.execute("DELETE FROM outbox_relay WHERE id = %s", [self._owner])
        self.held, self.draining, self._known = {}, set(), {}

    def _lost(self, *, given_up: Collection[int]) -> set[int]:
        """Return the lanes that other relays have had since the last call, or still have.

        A new epoch says so, also of a lane that has come back.
        """
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
        """Ask the database for the lanes held, and return the number of lanes in the share."""
        params: dict[str, str | float] = {
            "owner": self._owner,
            "lease": self._lease,
            "most": self._lanes_max,
        }
        with connection.cursor() as cursor:
            cursor.execute(_RENEW_AND_CLAIM, params)
            while cursor.cursor.nextset():
                pass
            found = cursor.cursor.fetchall()
        self.held = {lane: epoch for _, lane, epoch in found if lane is not None}
        return int(found[0][0])
