"""What has been handed to the broker and is not yet deleted, lane by lane.

- A lane stops at its first failure until every report of what is in flight in it is in: a later
  message of a key must not overtake an earlier one.
- A message is judged only by a refusal that it got alone, or unsent: a refused batch judges no
  message.
"""

from collections.abc import Collection, Iterable

from brokers import Acknowledged, Failed, Refused, Report
from outbox.models import LANES
from relay.rows import Row


class Flight:
    """The messages under way. Their ids leave it only once their rows are deleted, parked, or to
    be sent again."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.refused: dict[int, str] = {}
        self.unsent: set[int] = set()
        self.to_rest: dict[int, str] = {}
        """Lanes of which the broker did not take a message, though it takes others, and why."""
        self.troubles = 0
        """How many messages did not arrive."""
        self._failure: Failed | None = None
        self._is_explained = False
        self._acknowledged: list[Row] = []
        self._failed: set[int] = set()
        self._unreported = [0] * LANES  # in each lane
        self._halted: set[int] = set()

    @property
    def unreported(self) -> int:
        return sum(self._unreported)

    @property
    def halted(self) -> set[int]:
        """The lanes in which nothing more may be sent for now."""
        return self._halted

    @property
    def lanes(self) -> set[int]:
        """The lanes with something under way."""
        return {row.lane for row in self.rows.values()}

    def start(self, row: Row) -> None:
        self.rows[row.id] = row
        self._unreported[row.lane] += 1

    def cancel(self, row: Row) -> None:
        """It was not sent after all."""
        del self.rows[row.id]
        self._unreported[row.lane] -= 1

    def land(self, reports: Iterable[Report]) -> None:
        rows, unreported = self.rows, self._unreported
        for report in reports:
            row = rows.get(report.token)
            if row is None:
                continue
            unreported[row.lane] -= 1
            if isinstance(report, Acknowledged):
                self._acknowledged.append(row)
            else:
                self._stop(row, report)

    def _stop(self, row: Row, report: Refused | Failed) -> None:
        self._halted.add(row.lane)
        self.troubles += 1
        if isinstance(report, Refused):
            self.refused[row.id] = report.reason
            if report.unsent:
                self.unsent.add(row.id)
            else:
                self._is_explained = True
            return
        self._failed.add(row.id)
        if report.only_it:
            self.to_rest[row.lane] = report.reason
            self._is_explained = True
        elif report.in_company:
            self._is_explained = True
        else:
            is_told = self._failure is not None and self._failure.lasting
            self._failure = self._failure if is_told else report

    def take_failure(self) -> Failed | None:
        """Why messages failed, once every report is in, and of several reasons one that time does
        not heal; None where none did, or where the refusal of another one explains it."""
        if self.unreported:
            return None
        failure = None if self._is_explained else self._failure
        self._failure, self._is_explained = None, False
        return failure

    def acknowledged(self) -> list[Row]:
        """What may be deleted; say so to `deleted()` once that is committed."""
        return [*self._acknowledged]

    def deleted(self, rows: Collection[Row]) -> None:
        """These are what `acknowledged()` has said, and no longer in the outbox."""
        del self._acknowledged[: len(rows)]
        for row in rows:
            del self.rows[row.id]

    def forget(self, rows: Iterable[Row]) -> None:
        """These have not arrived, and are parked or will be sent again."""
        gone = {row.id for row in rows}
        for token in gone:
            self.rows.pop(token, None)
        for token in self.refused.keys() & gone:
            del self.refused[token]
        self._failed -= gone
        self.unsent -= gone

    def settled(self, quiet: Collection[int]) -> tuple[dict[int, Row], dict[int, Row]]:
        """In these quiet lanes: what was refused, and what failed. They may go on as soon as
        `resume()` is told so."""
        refused = {t: self.rows[t] for t in self.refused if self.rows[t].lane in quiet}
        failed = {t: self.rows[t] for t in self._failed if self.rows[t].lane in quiet}
        return refused, failed

    def resume(self, lanes: Iterable[int]) -> None:
        self._halted -= set(lanes)

    def quiet_lanes(self) -> set[int]:
        """The halted lanes of which every report is in, and what has arrived is deleted."""
        arrived = {row.lane for row in self._acknowledged} if self._halted else ()
        return {lane for lane in self._halted.difference(arrived) if not self._unreported[lane]}
