"""Limit the statements of a local step, and the pauses between two, on PostgreSQL."""

from datetime import timedelta

from saga_runtime.round_trips import run_together
from sagas.journal import sql

# In settings of our own, which end with the transaction: a look at the limits first would be a
# round trip. Not DEFAULT later, which is not what a project has SET when it connected.
_KEEP = (
    "SELECT set_config('sagas.statements', current_setting('statement_timeout'), true),"
    " set_config('sagas.pauses', current_setting('idle_in_transaction_session_timeout'), true)"
)
_LIMIT = (
    "SELECT set_config('statement_timeout', %s, true),"
    " set_config('idle_in_transaction_session_timeout', %s, true)"
)
_LIMITS_AS_USUAL = (
    "SELECT set_config('statement_timeout', current_setting('sagas.statements'), true),"
    " set_config('idle_in_transaction_session_timeout', current_setting('sagas.pauses'), true)"
)
# For the server that has no limit of its own.
# Not from pg_settings, a view that puts all settings together: that takes a millisecond.
_LIMIT_PAUSES = """
SELECT set_config('idle_in_transaction_session_timeout', '60s', true)
WHERE current_setting('idle_in_transaction_session_timeout') = '0'
"""


def limit_statements(seconds: float, *, keep_usual: bool = False) -> None:
    """Limit the seconds of each statement, and of each pause between two, in this transaction.

    Args:
        seconds: the limit; on SQLite there is none.
        keep_usual: keep the limits so far, for `usual_limits()`.
    """
    if not sql.is_postgresql():
        return
    limit = str(max(1, round(timedelta(seconds=seconds).total_seconds() * 1000)))
    kept: list[sql.Statement] = [(_KEEP, [])] if keep_usual else []
    run_together(*kept, (_LIMIT, [limit, limit]))


def usual_limits() -> list[sql.Statement]:
    """Build the statements that take `limit_statements(…, keep_usual=True)` back, for a hook.

    They are for the same transaction; none on SQLite.
    """
    return [(_LIMITS_AS_USUAL, []), *limit_pauses()] if sql.is_postgresql() else []


def limit_pauses() -> list[sql.Statement]:
    """Build the statement that limits the pauses of a hook; none on SQLite.

    It keeps a hook that hangs from holding the saga's row for ever: nobody could claim the saga.
    """
    return [(_LIMIT_PAUSES, [])] if sql.is_postgresql() else []
