"""Tell refusals of the database from outages, and report them.

Time alone does not mend a missing right of the role, a missing migration, or a replica identity
that PostgreSQL does not take. A relay waits until a person has mended the database, and publishes
nothing meanwhile. To end would be worse: started again, the relay would publish again the rows that
could not be deleted.
"""

import time
from collections.abc import Callable

from django.db import Error

from relay.timing import POSTGRESQL_TIMING, Timing
from saga_runtime.database_errors import sqlstate
from saga_runtime.logs import get_logger
from saga_runtime.text import one_line_error

logger = get_logger(__name__)

# PostgreSQL's classes of errors that may pass by themselves: connection, transaction state,
# conflicts, resources, operator, system. And two states that speak of what others do now.
_PASSING = ("08", "25", "40", "53", "57", "58")
_BUSY = ("55P03", "55006")

_MISSING = ("42P01", "42703", "42883")
_DENIED = "42501"


def is_refusal(error: BaseException) -> bool:
    """Tell whether the database has answered, and refuses the statement."""
    state = sqlstate(error)
    return bool(state) and state[:2] not in _PASSING and state not in _BUSY


def advice(error: BaseException) -> str:
    """Name the way out of a refusal."""
    state = sqlstate(error)
    if state == _DENIED:
        return "give the relay's role the rights that docs/how-to/database-roles.md lists"
    if state in _MISSING:
        return "run manage.py migrate"
    if "replica identity" in str(error).lower():
        return (
            "for each segment N run ALTER TABLE outbox_message_N REPLICA IDENTITY USING INDEX "
            "outbox_message_N_identity, as manage.py migrate did"
        )
    return "mend it, and the relay goes on by itself"


class Refusal:
    """Tell of refusals: call `refused()` after each, and `over()` after each success."""

    def __init__(
        self, *, timing: Timing = POSTGRESQL_TIMING, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._timing = timing
        self._clock = clock
        self._failures = 0
        self._report_due = 0.0

    def refused(self, error: Error) -> float:
        """Log the refusal, once and then now and then.

        Returns:
            The seconds to pause before the next attempt.
        """
        now = self._clock()
        if not self._failures or now >= self._report_due:
            self._report_due = now + self._timing.refusal_report
            logger.error("%s", describe_refusal(error))
        self._failures += 1
        return self._timing.refusal.pause(self._failures)

    def over(self) -> None:
        """Note a success."""
        if self._failures:
            logger.warning("the database no longer refuses, publishing goes on")
        self._failures = 0


def describe_refusal(error: Error) -> str:
    """Describe in a line the refusal, the consequence, and the way out."""
    return (
        f"the database refuses what the relay needs, nothing is published until it does not: "
        f"{one_line_error(error)}: {advice(error)}"
    )
