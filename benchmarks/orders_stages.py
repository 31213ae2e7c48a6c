"""Read from the tables and from Kafka, after a run, when each order came how far.

All moments are clocks of one machine. "Commit" is `orders_order.created_at`, set just before the
order's INSERT. "Kafka" is the time at which the broker appended the command (LogAppendTime, whole
milliseconds). "Inbox" is `sagas_saga.created_at`, set just before the inbox's INSERT. There is no
moment of the claim: it is the start of the first step. A step goes from `sagas_step.started_at` to
`finished_at`. The end is `sagas_saga.finished_at`, set in the saga's last transaction. The commits
themselves leave no moment.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from operator import itemgetter

from benchmarks.measuring import Observer

COMMIT_TO_END = "commit → end"

_SAGAS = """
    SELECT o.order_id, extract(epoch FROM o.created_at)::float8,
        extract(epoch FROM s.created_at)::float8, extract(epoch FROM s.finished_at)::float8
    FROM orders_order o JOIN sagas_saga s ON s.id = o.saga_id
    WHERE o.order_id = ANY(%s) AND o.status = 'fulfilled'
"""
_STEPS = """
    SELECT o.order_id, t.step, extract(epoch FROM t.started_at)::float8,
        extract(epoch FROM t.finished_at)::float8
    FROM orders_order o JOIN sagas_step t ON t.saga_id = o.saga_id
    WHERE o.order_id = ANY(%s) AND t.kind = 'F'
    ORDER BY o.order_id, t.started_at, t.finished_at
"""

Moments = list[tuple[str, float]]  # the stage that ends there, and Unix time


def read(
    observer: Observer, order_ids: Sequence[str], arrivals: Mapping[str, float]
) -> list[Moments]:
    """Return the moments of each order, from its commit to its end."""
    ids = list(order_ids)
    steps = {
        order_id: _moments_of_steps([row[1:] for row in rows])
        for order_id, rows in groupby(observer.rows(_STEPS, ids), itemgetter(0))
    }
    found = [
        [
            ("commit", committed),
            ("commit → Kafka", arrivals[order_id]),
            ("Kafka → inbox", accepted),
            *steps[order_id],
            ("last step → end", ended),
        ]
        for order_id, committed, accepted, ended in observer.rows(_SAGAS, ids)
    ]
    if len(found) != len(ids):
        raise SystemExit(f"{len(found)} of {len(ids)} orders were fulfilled")
    return found


def durations(orders: Sequence[Moments]) -> dict[str, list[float]]:
    """Return the milliseconds of each stage, and of all together."""
    found: dict[str, list[float]] = {}
    for moments in orders:
        for (_, before), (stage, at) in pairwise(moments):
            found.setdefault(stage, []).append((at - before) * 1000)
    found[COMMIT_TO_END] = [(moments[-1][1] - moments[0][1]) * 1000 for moments in orders]
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share (0 to 1) of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _moments_of_steps(rows: Sequence[tuple[str, float, float]]) -> Moments:
    found: Moments = []
    for step, started, finished in rows:
        before = found[-1][0] if found else "inbox"
        found += [(f"{before} → {step}", started), (step, finished)]
    return found
