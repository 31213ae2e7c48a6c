"""What an error of the database says: that it is away, that two transactions met, or neither."""

from django.db import Error

_CONFLICTS = ("40001", "40P01", "55P03")  # serialisation failure, deadlock, lock not available
_AWAY = ("08", "53", "57", "58")  # connection, resources, operator, system
_ENDED = ("25P03", "25006")  # idle in transaction for too long, read only after a failover
_CANCELED = "57014"  # a statement that was cancelled, by its timeout for one


def is_conflict(error: Error) -> bool:
    """Whether the transaction was ended in favour of another, so that trying again may help."""
    return _sqlstate(error) in _CONFLICTS


def is_outage(error: Error) -> bool:
    """Whether the server does not answer, as opposed to answering that the statement is at fault.

    Source: PostgreSQL's appendix "Error Codes"; without a code it was the connection. SQLite's
    SQLITE_ERROR is a fault of the statement, the others are about the file.
    """
    state = _sqlstate(error)
    if state in _ENDED:
        return True
    if state:
        return state[:2] in _AWAY and state != _CANCELED
    return getattr(error.__cause__, "sqlite_errorname", "") != "SQLITE_ERROR"


def _sqlstate(error: Error) -> str:
    return getattr(error.__cause__, "sqlstate", None) or ""
