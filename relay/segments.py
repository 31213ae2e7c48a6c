"""Empty the outbox's segments, on PostgreSQL.

While any transaction holds an old snapshot, deleted rows cannot be vacuumed and every read walks
over them. So the table is partitioned by a segment, new rows go into the current segment, and the
rest is emptied as a whole. An empty segment becomes the current segment; a segment kept from being
emptied does not, and so grows no more.

Emptying is housekeeping: where the relay's role may not empty, a line in the log says so now and
then, and publishing goes on. Deleted rows are then vacuumed as in any table.

The order of three statements keeps messages: lock, without waiting; then look, under the lock; then
truncate. To look first would lose a row that commits in between, and to wait for the lock would let
every insert wait behind the relay.
"""

import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Protocol

from django.db import Error, OperationalError, connection, transaction

from relay.refusals import is_refusal
from relay.timing import POSTGRESQL_TIMING, Timing
from saga_runtime.database_errors import is_lock_not_available
from saga_runtime.logs import get_logger
from saga_runtime.text import one_line_error

logger = get_logger(__name__)

REPORT_BYTES = 64 * 1024 * 1024

_PREFIX = "outbox_message_"
_GRANT = """GRANT SELECT, TRUNCATE ON outbox_message_0, outbox_message_1, outbox_message_2, \
outbox_message_3 TO "{role}"; GRANT SELECT, UPDATE ON SEQUENCE outbox_segment TO "{role}";"""
# Each with its size, which is there without a scan.
_SEGMENTS = f"""
SELECT child.relname::text, pg_relation_size(child.oid),
    child.relname = '{_PREFIX}' || (SELECT last_value FROM outbox_segment)
FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
WHERE inhparent = 'outbox_message'::regclass ORDER BY child.relname
"""  # noqa: S608 - constants
# Whose lock keeps a segment from being emptied; of several, the oldest transaction's.
_HOLDER = """
SELECT l.relation::regclass::text, a.pid, a.application_name,
    extract(epoch FROM now() - a.xact_start)
FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
WHERE l.relation = ANY (%s::regclass[]) AND l.granted AND a.pid <> pg_backend_pid()
ORDER BY a.xact_start LIMIT 1
"""


class Segment(NamedTuple):
    """Describe a partition of the outbox.

    Attributes:
        size: in bytes, with deleted rows not yet freed.
        is_current: whether new rows go into the segment.
    """

    name: str
    size: int
    is_current: bool


class Segments(Protocol):
    """Keep the outbox's segments small."""

    @property
    def is_due(self) -> bool:
        """Tell whether the next `tend()` would do something."""

    def tend(self) -> None:
        """Empty segments where possible, if due."""

    def note_deletes(self) -> None:
        """Note that rows have been deleted, and segments may become empty."""


class NoSegments:
    """Do nothing: SQLite's outbox is a plain table."""

    is_due = False

    def tend(self) -> None:
        """Do nothing."""

    def note_deletes(self) -> None:
        """Do nothing."""


class RotatingSegments:
    """Empty segments where possible, every few seconds while there is something.

    Args:
        report_bytes: a larger outbox that cannot be emptied is logged.
        clock: seconds.
    """

    def __init__(
        self,
        *,
        timing: Timing = POSTGRESQL_TIMING,
        report_bytes: int = REPORT_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timing = timing
        self._report_bytes = report_bytes
        self._clock = clock
        self._due = 0.0
        self._attempts = 0
        self._report_due = 0.0
        self._is_refused = False
        self._is_clean = False

    def note_deletes(self) -> None:
        """Note that rows have been deleted, and segments may become empty."""
        self._is_clean = False
        if self._attempts and not self._is_refused:
            self._attempts = 0
            self._due = min(self._due, self._clock() + self._timing.segments.first)

    @property
    def is_due(self) -> bool:
        """Tell whether the next `tend()` would do something."""
        return not self._is_clean and self._clock() >= self._due

    def tend(self) -> None:
        """Empty segments where possible, if due.

        A refusal of the database is logged and not raised.
        """
        now = self._clock()
        if self._is_clean or now < self._due:
            return
        try:
            self._tend(now)
        except Error as error:
            if not is_refusal(error):
                raise
            self._is_refused = True
            self._due = now + self._timing.segments_refused
            _report_refusal(error)
        else:
            self._is_refused = False

    def _tend(self, now: float) -> None:
        self._attempts += 1
        self._due = now + self._timing.segments.pause(self._attempts)
        segments = _segments()
        full = [each for each in segments if each.size]
        # Nothing to do until rows are deleted again: an idle relay asks nothing.
        self._is_clean = not full
        refused = [each.name for each in full if not each.is_current and not empty(each.name)]
        if any(each.is_current for each in full):
            _make_another_current(segments, refused)
        size = sum(each.size for each in full)
        if refused and size > self._report_bytes and now >= self._report_due:
            self._report_due = now + self._timing.segments_report
            self._report(refused, size)

    def _report(self, refused: list[str], size: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute(_HOLDER, [refused])
            holder = cursor.fetchone()
        name, who = refused[0], "rows wait in it"
        if holder:
            name, pid, application, age = holder
            who = f"process {pid} ({application or 'unnamed'}) has used it for {age:.0f} s"
        logger.warning(
            "the outbox has grown to %d MB, %s cannot be emptied: %s", size // 2**20, name, who
        )


def _report_refusal(error: Error) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        (role,) = cursor.fetchone()
    logger.warning(
        "the outbox's segments cannot be emptied, publishing goes on: %s. What this role lacks: %s",
        one_line_error(error),
        _GRANT.format(role=role),
    )


def _segments() -> list[Segment]:
    with connection.cursor() as cursor:
        cursor.execute(_SEGMENTS)
        return [*map(Segment._make, cursor.fetchall())]


def _make_another_current(segments: Sequence[Segment], refused: Collection[str]) -> None:
    """Let new rows go into an empty segment, if there is any."""
    for each in segments:
        if not each.is_current and each.name not in refused:
            make_current(each.name)
            return


def make_current(segment: str) -> None:
    """Let new rows go into a segment.

    A transaction that has asked for the current segment before may still write elsewhere.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT setval('outbox_segment', %s)", [int(segment.removeprefix(_PREFIX))])


def empty(segment: str) -> bool:
    """Empty a segment, if unused and without rows.

    Returns:
        Whether the segment is empty now.
    """
    name = connection.ops.quote_name(segment)
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            # Lock, look, truncate: the order matters, see above.
            cursor.execute(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE NOWAIT")
            cursor.execute(f"SELECT EXISTS (SELECT FROM {name})")  # noqa: S608 - a table's name
            (has_rows,) = cursor.fetchone()
            if not has_rows:
                cursor.execute(f"TRUNCATE {name}")
    except OperationalError as error:
        if not is_lock_not_available(error):
            raise
        return False
    return not has_rows
