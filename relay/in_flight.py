"""Keep messages handed to the broker until their rows are deleted, lane by lane.

Invariants:
- A lane halts at its first failure until every report of the lane is in: a later message of a key
  must not overtake an earlier message.
- Only a refusal alone, or unsent, judges a message: a refused batch judges no message.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from brokers import Acknowledged, Failed, Refused, Report
from outbox.models import LANES
from relay.store import Row


class Undelivered(NamedTuple):
    """Hold rows of messages that did not arrive, by id: refused by the broker, or failed."""

    refused: dict[int, Row]
    failed: dict[int, Row]


class InFlight:
    """Keep the rows in flight, and the broker's report of each.

    A row leaves when deleted, parked, or due to be sent again.

    Attributes:
        rows: all rows in flight, by id; do not write.
        reasons: by id, why the broker has refused a message.
        unsent: the ids of messages refused without being sent.
        lanes_to_rest: lanes of which the broker did not take a message, though the broker takes
            messages of further lanes, each with the broker's reason.
        halted: lanes in which nothing more may be sent for now; do not write.
        undelivered_count: how many messages did not arrive, since the start.
    """

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.reasons: dict[int, str] = {}
        self.unsent: set[int] = set()
        self.lanes_to_rest: dict[int, str] = {}
        self.halted: set[int] = set()
        self.undelivered_count = 0
        self._failure: Failed | None = None
        self._is_explained = False
        self._acknowledged: list[Row] = []
        self._failed: set[int] = set()
        self._unreported = [0] * LANES  # in each lane

    @property
    def unreported(self) -> int:
        """Return how many messages have no report yet."""
        return sum(self._unreported)

    @property
    def lanes(self) -> set[int]:
        """Return the lanes with a row in flight."""
        return {row.lane for row in self.rows.values()}

    @property
    def keys(self) -> set[str]:
        """Return the keys with a row in flight."""
        return {row.key for row in self.rows.values()}

    def add(self, row: Row) -> None:
        """Note a row about to be sent."""
        self.rows[row.id] = row
        self._unreported[row.lane] += 1

    def take_back(self, row: Row) -> None:
        """Note that a row was not sent after all."""
        del self.rows[row.id]
        self._unreported[row.lane] -= 1

    def note_reports(self, reports: Iterable[Report]) -> None:
        """Note the broker's reports; a report of a row no longer in flight says nothing."""
        rows, unreported = self.rows, self._unreported
        for report in reports:
            row = rows.get(report.token)
            if row is None:  # of a lane lost meanwhile, or purged
                continue
            unreported[row.lane] -= 1
            if isinstance(report, Acknowledged):
                self._acknowledged.append(row)
            else:
                self._halt(row, report)

    def _halt(self, row: Row, report: Refused | Failed) -> None:
        self.halted.add(row.lane)
        self.undelivered_count += 1
        if isinstance(report, Refused):
            self.reasons[row.id] = report.reason
            if report.unsent:
                self.unsent.add(row.id)
            else:
                # The broker answers, so what failed beside this message is no outage.
                self._is_explained = True
            return
        self._failed.add(row.id)
        if report.only_it:
            self.lanes_to_rest[row.lane] = report.reason
            self._is_explained = True
        elif report.in_company:
            self._is_explained = True
        elif self._failure is None or not self._failure.lasting:
            self._failure = report

    def take_failure(self) -> Failed | None:
        """Return why messages failed, once every report is in, and forget the reason.

        Returns:
            Of several reasons a lasting reason first. None where no message failed, and where a
            refusal explains the failure.
        """
        if self.unreported:
            return None
        failure = None if self._is_explained else self._failure
        self._failure, self._is_explained = None, False
        return failure

    def acknowledged(self) -> list[Row]:
        """Return the rows to delete; afterwards tell `remove_deleted()`."""
        return [*self._acknowledged]

    def remove_deleted(self, rows: Collection[Row]) -> None:
        """Forget rows returned by `acknowledged()` and now deleted."""
        # The first ones: reports that came during the delete were appended behind them.
        del self._acknowledged[: len(rows)]
        for row in rows:
            del self.rows[row.id]

    def remove_undelivered(self, rows: Iterable[Row]) -> None:
        """Forget rows of undelivered messages, now parked or due to be sent again."""
        gone = {row.id for row in rows}
        for token in gone:
            self.rows.pop(token, None)
        for token in self.reasons.keys() & gone:
            del self.reasons[token]
        self._failed -= gone
        self.unsent -= gone

    def settled_lanes(self) -> set[int]:
        """Return the halted lanes with all reports in, and all arrived rows deleted."""
        # What arrived goes first: parked with its key meanwhile, it would be sent once more.
        arrived = {row.lane for row in self._acknowledged} if self.halted else ()
        return {lane for lane in self.halted.difference(arrived) if not self._unreported[lane]}

    def undelivered(self, lanes: Collection[int]) -> Undelivered:
        """Return the undelivered rows of settled lanes; then `resume()` the lanes."""
        rows = self.rows
        return Undelivered(
            refused={token: rows[token] for token in self.reasons if rows[token].lane in lanes},
            failed={token: rows[token] for token in self._failed if rows[token].lane in lanes},
        )

    def resume(self, lanes: Iterable[int]) -> None:
        """Let halted lanes go on."""
        self.halted.difference_update(lanes)
