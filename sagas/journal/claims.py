"""Assign sagas to workers: claims, each with a new epoch, and leases.

The column `next_run_at` holds the end of a held saga's lease, and the moment at which a waiting
saga is due. So a single index finds due sagas and sagas of lost workers.
"""

import random
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from sagas.journal import sql
from sagas.journal.loading import load_claimed, returned_columns
from sagas.journal.records import Claimed
from sagas.journal.sql import Rows
from sagas.models import ACTIVE, Saga, SagaStatus

# A number of 64 bits, "sag" in its upper half: keeps clear of other users of advisory locks.
_LIMITS_LOCK = 0x736167 << 32


def claim(
    *,
    worker: str,
    limit: int,
    lease: timedelta,
    at_most: Mapping[str, int] | None = None,
    only: UUID | None = None,
    suspect_from: int = 2,
    chance: Callable[[], float] = random.random,
) -> list[Claimed]:
    """Claim sagas without a worker, and sagas whose lease has run out.

    Args:
        worker: the claiming worker's name.
        limit: the most sagas to claim.
        lease: how long each saga is the worker's, unless the lease is renewed.
        at_most: how many sagas of a name may run at a time, among all workers.
        only: a saga's id; no other saga is claimed.
        suspect_from: sagas with so many lost workers may have killed the workers, and are left to
            `claim_suspect()`.
        chance: random numbers from 0 up to 1.

    Returns:
        The sagas, the oldest first.
    """
    limits = at_most or {}
    began = time.monotonic()
    # On SQLite a claim waits for the one writer's turn; a look beforehand waits for nobody.
    if not sql.is_postgresql() and not _is_anything_claimable(only):
        return []
    # With limits the count and the claim need one transaction, and on SQLite the writer's turn; a
    # single statement of PostgreSQL commits by itself, and spares two round trips.
    with transaction.atomic() if limits or not sql.is_postgresql() else nullcontext():
        # Half of the room is for names with a limit, and an odd place every other time: neither
        # those names nor the others starve.
        half = int(limit / 2 + chance()) if limits else 0
        taken: Rows = []
        which = _which(only, suspect_from, suspects=False)
        if half:
            taken = _take_limited(worker, half, lease, limits, which=which, chance=chance)
        room = limit - len(taken)
        taken += _take(worker, room, lease, names=limits, negated=True, which=which)
        # The odd place was for names without a limit, of which no saga waits: not left empty.
        if limits and not half and not taken:
            taken = _take_limited(worker, limit, lease, limits, which=which, chance=chance)
    return load_claimed(taken, worker=worker, began=began)


def claim_suspect(
    *,
    worker: str,
    lease: timedelta,
    at_most: Mapping[str, int] | None = None,
    suspect_from: int = 2,
) -> list[Claimed]:
    """Claim a suspect, a saga that may have killed workers; the caller runs the suspect alone.

    Sagas beside a killer lose their workers too, and would be parked for nothing.

    Args:
        worker: the claiming worker's name.
        lease: how long the saga is the worker's, unless the lease is renewed.
        at_most: how many sagas of a name may run at a time, among all workers.
        suspect_from: how many lost workers make a saga a suspect.

    Returns:
        A single saga, or none.
    """
    limits = at_most or {}
    began = time.monotonic()
    with transaction.atomic() if limits or not sql.is_postgresql() else nullcontext():
        which = _which(None, suspect_from, suspects=True)
        taken = _take(worker, 1, lease, names=limits, negated=True, which=which)
        if limits and not taken:
            taken = _take_limited(worker, 1, lease, limits, which=which, chance=random.random)
    return load_claimed(taken, worker=worker, began=began)


def is_there_a_suspect(*, at_most: Mapping[str, int] | None = None, suspect_from: int = 2) -> bool:
    """Tell whether `claim_suspect()` would find a saga, given the same arguments."""
    now, params = sql.moment()
    # No suspect of a full name could be claimed, and the worker would keep itself free for nothing.
    full = [name for name, most in (at_most or {}).items() if _held(name) >= most]
    others = f" AND name NOT IN ({sql.listed(full)})" if full else ""
    return bool(
        sql.run(
            f"SELECT 1 FROM sagas_saga WHERE {_ACTIVE} AND NOT paused AND next_run_at <= {now}"  # noqa: S608
            f" AND {_is_suspect(suspect_from)}{others} LIMIT 1",
            [*params, *full],
        )
    )


def renew(*, worker: str, ids: Collection[UUID], lease: timedelta) -> None:
    """Extend the leases of the given sagas, as far as the worker still holds the sagas."""
    until, params = sql.moment(seconds_ahead=lease.total_seconds())
    among, keys = sql.among(sorted(ids))
    # Nobody can claim a row that is locked; to wait for the lock would cost all others their lease.
    skip_locked = " FOR NO KEY UPDATE SKIP LOCKED" if sql.is_postgresql() else ""
    _update(
        f"next_run_at = {until} WHERE id IN (SELECT id FROM sagas_saga WHERE {among}"  # noqa: S608
        f" AND worker = %s AND {_ACTIVE}{skip_locked})",
        [*params, *keys, worker],
    )


def release(*, worker: str, but: Collection[UUID] = ()) -> None:
    """Give up a worker's sagas, so that the next worker may claim the sagas at once.

    Args:
        worker: the worker's name.
        but: sagas to keep until the leases run out: then the takeover counts against these sagas,
            and parks them in the end.
    """
    # Without a worker in the row, the next claim counts no takeover; of those left out, it does.
    now, params = sql.moment()
    among, keys = sql.among(sorted(but)) if but else ("FALSE", [])
    _update(
        f"next_run_at = {now}, worker = '' WHERE worker = %s AND NOT ({among}) AND {_ALL_ACTIVE}",
        [*params, worker, *keys],
    )


def release_all() -> int:
    """Take every worker's sagas away, each as a takeover; to be called where no worker is alive.

    Returns:
        The number of sagas that were held.
    """
    held = Saga.objects.filter(status__in=ACTIVE).exclude(worker="")
    return held.update(next_run_at=sql.now(), worker="", takeovers=F("takeovers") + 1)


# Written out, not as parameters: a planner has to see the statuses to use the partial index.
_ACTIVE = "status IN ({})".format(", ".join(f"'{status.value}'" for status in ACTIVE))
_ALL_ACTIVE = f"{_ACTIVE} AND (paused OR NOT paused)"  # see PAUSED_OR_NOT


def _is_suspect(cost: int) -> str:
    """Return the condition that a saga has lost so many workers.

    A worker whose lease has just run out counts as lost, though only the claim will write so.
    """
    return f"(takeovers >= {cost:d} OR (takeovers = {cost - 1:d} AND worker <> ''))"


def _is_anything_claimable(only: UUID | None) -> bool:
    sagas = Saga.objects.claimable(timezone.now())
    return (sagas if only is None else sagas.filter(id=only)).exists()


def _which(only: UUID | None, suspect_from: int, *, suspects: bool) -> sql.Statement:
    if only is not None:
        return "id = %s", [sql.id_text(only)]
    return f"{'' if suspects else 'NOT '}{_is_suspect(suspect_from)}", []


def _take_limited(
    worker: str,
    limit: int,
    lease: timedelta,
    limits: Mapping[str, int],
    *,
    which: sql.Statement,
    chance: Callable[[], float],
) -> Rows:
    """Claim sagas of the names with a limit, as many as the limits allow.

    The order of the names is left to chance. Workers count and claim in turn, or two workers would
    fill the same room.
    """
    if sql.is_postgresql():
        [(is_turn,)] = sql.run("SELECT pg_try_advisory_xact_lock(%s)", [_LIMITS_LOCK])
        # Another worker's turn. Not waited for: that worker may be frozen within it.
        if not is_turn:
            return []
    taken: Rows = []
    for name, most in sorted(limits.items(), key=lambda _: chance()):
        # The count can only fall until the commit: nobody else claims by limits in our turn.
        room = min(limit - len(taken), most)
        if room > 0:
            room = min(room, most - _held(name))
        if room > 0:
            taken += _take(worker, room, lease, names=[name], negated=False, which=which)
    return taken


def _take(
    worker: str,
    limit: int,
    lease: timedelta,
    *,
    names: Collection[str],
    negated: bool,
    which: sql.Statement,
) -> Rows:
    """Claim sagas of the given names, or of all further names.

    Args:
        worker: the claiming worker's name.
        limit: the most sagas to claim.
        lease: how long each saga is the worker's.
        names: names of sagas; without any, the names do not matter.
        negated: claim sagas of all names but the given.
        which: a further condition.

    Returns:
        Rows of sagas_saga, with the columns of `loading.returned_columns`.
    """
    now, now_params = sql.moment()
    until, until_params = sql.moment(seconds_ahead=lease.total_seconds())
    named = f"AND name {'NOT ' if negated else ''}IN ({sql.listed(names)})" if names else ""
    condition, condition_params = which
    skip_locked = "FOR UPDATE SKIP LOCKED" if sql.is_postgresql() else ""
    return sql.run_planned(
        # Locked, the longest due first; a row that another worker just claims is passed over.
        # MATERIALIZED, or a plan may run this part again for each row, past the limit.
        f"""
        WITH due AS MATERIALIZED (
            SELECT id FROM sagas_saga
            WHERE {_ACTIVE} AND NOT paused AND next_run_at <= {now} {named} AND {condition}
            ORDER BY next_run_at LIMIT %s {skip_locked}
        )
        """  # noqa: S608 - constants and placeholders
        # The new epoch fences off the worker before. A lease that has run out counts as a lost
        # worker; the direction of the saga is that of the journal.
        f"""
        UPDATE sagas_saga SET epoch = epoch + 1, worker = %s, next_run_at = {until},
            takeovers = CASE WHEN worker = '' THEN takeovers ELSE takeovers + 1 END,
            status = CASE WHEN failure = '' THEN '{SagaStatus.RUNNING.value}'
                WHEN cancelled THEN '{SagaStatus.CANCELLING.value}'
                ELSE '{SagaStatus.COMPENSATING.value}' END
        WHERE id IN (SELECT id FROM due) RETURNING {", ".join(returned_columns())}
        """,
        [*now_params, *names, *condition_params, limit, worker, *until_params],
    )


def _held(name: str) -> int:
    """Count the sagas of a name under a lease."""
    now, params = sql.moment()
    [(count,)] = sql.run(
        f"SELECT count(*) FROM sagas_saga WHERE {_ALL_ACTIVE} AND name = %s AND worker <> ''"  # noqa: S608
        f" AND next_run_at > {now}",
        [name, *params],
    )
    return int(count)


def _update(clause: str, params: Collection[Any]) -> None:
    with nullcontext() if sql.is_postgresql() else transaction.atomic():
        sql.run(f"UPDATE sagas_saga SET {clause}", list(params))  # noqa: S608 - constants
