"""Empties the outbox's segments, on PostgreSQL.

While any transaction holds an old snapshot, deleted rows cannot be vacuumed and every read walks
over them. So the table is partitioned by a segment that rotates by the clock, and one that is not
current is emptied as a whole.

The order of the three statements is what keeps messages: lock, without waiting; then look, under
the lock; then truncate. To look first loses a row that commits in between, and to wait for the lock
lets every insert wait behind it.
"""

import logging
import time
from collections.abc import Callable

from django.db import OperationalError, connection, transaction

logger = logging.getLogger(__name__)

EVERY = 5.0  # seconds
LONGEST_PAUSE = 60.0  # while nothing new comes
REPORT_BYTES = 64 * 1024 * 1024
REPORT_EVERY = 60.0

LOCK_NOT_AVAILABLE = "55P03"

_CURRENT = """
SELECT 'outbox_message_'
    || floor(extract(epoch FROM statement_timestamp()) / 15)::bigint % 4
"""
_SIZES = """
SELECT child.relname::text, pg_relation_size(child.oid), child.relname = ({current})
FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
WHERE inhparent = 'outbox_message'::regclass ORDER BY child.relname
"""
_HOLDER = """
SELECT a.pid, a.application_name, extract(epoch FROM now() - a.xact_start)
FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
WHERE l.relation = %s::regclass AND l.granted AND a.pid <> pg_backend_pid()
ORDER BY a.xact_start LIMIT 1
"""


class Segments:
    """Empties what can be emptied, every few seconds while there is something."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = 0.0
        self._pause = EVERY
        self._report_due = 0.0
        self._is_clean = connection.vendor != "postgresql"

    def used(self) -> None:
        """Rows have been deleted: there will be something to empty."""
        self._is_clean = connection.vendor != "postgresql"
        if self._pause != EVERY:
            self._pause = EVERY
            self._due = min(self._due, self._clock() + EVERY)

    def tend(self) -> None:
        now = self._clock()
        if self._is_clean or now < self._due:
            return
        self._due = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        with connection.cursor() as cursor:
            cursor.execute(_SIZES.format(current=_CURRENT))
            full = [(name, size, current) for name, size, current in cursor.fetchall() if size]
        self._is_clean = not full
        refused = [name for name, _, current in full if not current and not empty(name)]
        total = sum(size for _, size, _ in full)
        if refused and total > REPORT_BYTES and now >= self._report_due:
            self._report_due = now + REPORT_EVERY
            self._report(refused, total)

    def _report(self, refused: list[str], size: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute(_HOLDER, [refused[0]])
            holder = cursor.fetchone()
        who = "rows wait in it"
        if holder:
            who = (
                f"process {holder[0]} ({holder[1] or 'unnamed'}) has used it for {holder[2]:.0f} s"
            )
        logger.warning(
            "the outbox has grown to %d MB, %s cannot be emptied: %s",
            size // 1024 // 1024,
            refused[0],
            who,
        )


def empty(segment: str) -> bool:
    """Empty a segment if nobody uses it and nothing is in it; returns whether it was."""
    name = connection.ops.quote_name(segment)
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE NOWAIT")
            cursor.execute(f"SELECT EXISTS (SELECT FROM {name})")  # noqa: S608 - a table's name
            (has_rows,) = cursor.fetchone()
            if not has_rows:
                cursor.execute(f"TRUNCATE {name}")
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", "") != LOCK_NOT_AVAILABLE:
            raise
        return False
    return not has_rows
