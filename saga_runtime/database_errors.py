"""Read from an error whether our own database is away, two transactions met, or neither.

Django's classes do not tell whose database failed: a foreign server, and a file opened by a step,
raise the same classes. The traceback does tell: each of Django's errors has passed through the
connection on which the error happened.
"""

from collections.abc import Iterator
from types import TracebackType
from typing import TypeGuard

from django.db import (
    DEFAULT_DB_ALIAS,
    Error,
    InterfaceError,
    InternalError,
    OperationalError,
    connection,
)
from django.db.utils import DatabaseErrorWrapper

from saga_runtime.text import leaves

# InternalError is what a server says that has ended our transaction or has become a replica.
AWAY = (OperationalError, InterfaceError, InternalError)
"""Django's errors for an absent database; the same statement may work later."""

_LOCK_NOT_AVAILABLE = "55P03"
NO_SUCH_STATEMENT = "26000"
"""PostgreSQL's code for a prepared statement that it does not know, or no more."""
# Besides: serialisation failure, deadlock.
_CONFLICTS = ("40001", "40P01", _LOCK_NOT_AVAILABLE, NO_SUCH_STATEMENT)
_NOT_SUPPORTED = "0A000"
_STALE = "RevalidateCachedQuery"  # the function: the text is translated
_AWAY = ("08", "53", "57", "58")  # connection, resources, operator, system
_ENDED = ("25P03", "25006")  # idle in transaction for too long, read only after a failover
_CANCELED = "57014"  # a statement that was cancelled, by its timeout for one
_RAISES = DatabaseErrorWrapper.__exit__.__code__


def sqlstate(error: BaseException) -> str:
    """Return PostgreSQL's code of an error of Django's; empty without a code."""
    return getattr(error.__cause__, "sqlstate", None) or ""


def is_databases(error: BaseException) -> TypeGuard[Error]:
    """Tell whether the error is Django's report of an absent database, ours or another.

    Not by `isinstance`: an error may lie about its class, or raise where it is asked for its class.
    """
    return issubclass(type(error), AWAY)


def is_conflict(error: Error) -> bool:
    """Tell whether a transaction was ended in favour of another: trying again may help.

    So it does where a table was altered under a prepared statement: the next one is made anew.
    """
    return sqlstate(error) in _CONFLICTS


def is_stale_plan(error: BaseException) -> bool:
    """Tell whether the server refuses a prepared statement that it knew.

    Args:
        error: psycopg's. Source: PostgreSQL's `RevalidateCachedQuery` and `FetchPreparedStatement`.
    """
    state = getattr(error, "sqlstate", None)
    return state == NO_SUCH_STATEMENT or (state == _NOT_SUPPORTED and _where(error) == _STALE)


def is_lock_not_available(error: Error) -> bool:
    """Tell whether a statement was refused a lock."""
    return sqlstate(error) == _LOCK_NOT_AVAILABLE


def _where(error: BaseException) -> str | None:
    """Return the function of PostgreSQL's source that has raised an error."""
    return getattr(getattr(error, "diag", None), "source_function", None)


def is_outage(error: Error) -> bool:
    """Tell whether the database is away; otherwise the statement is at fault.

    Source: PostgreSQL's appendix "Error Codes"; an error without a code is the connection's.
    SQLite's SQLITE_ERROR is a fault of the statement; all further codes are about the file.
    """
    state = sqlstate(error)
    if state in _ENDED:
        return True
    if state:
        return state[:2] in _AWAY and state != _CANCELED
    return getattr(error.__cause__, "sqlite_errorname", "") != "SQLITE_ERROR"


def alias_of(error: BaseException) -> str | None:
    """Name the database on whose connection the error happened, as `DATABASES` calls it.

    Returns:
        The alias; None where no connection of Django's has raised the error.
    """
    found = None
    for frame in _frames(error.__traceback__):
        if frame.tb_frame.f_code is _RAISES:
            found = frame.tb_frame.f_locals["self"].wrapper.alias
    return found


def ours_timed_out(error: BaseException) -> Error | None:
    """Find the error of a statement cancelled by our own database for taking too long.

    Such an error says nothing against the statement: while the database is overloaded, a lookup by
    an index takes as long.

    Returns:
        The error itself; None where another error, or another database's, was given.
    """
    if is_databases(error) and sqlstate(error) == _CANCELED and not is_of_another(error):
        return error
    return None


def keeps_waiting(error: BaseException) -> bool:
    """Tell whether our own database answers and has given a statement up.

    The statement took too long, or waited for another session's lock.
    """
    if not is_databases(error) or is_of_another(error):
        return False
    return is_lock_not_available(error) or ours_timed_out(error) is not None


def is_of_another(error: BaseException) -> bool:
    """Tell whether the error happened on Django's connection to another database than ours."""
    return alias_of(error) not in (None, DEFAULT_DB_ALIAS)


def our_outage(error: BaseException) -> Error | None:
    """Find an outage of our own database among the causes of an error.

    Args:
        error: raised by a step, a hook or a trigger. Its causes, its context and the members of an
            exception group are looked at too.

    Returns:
        The outage's error; None without an outage, or where nothing tells whose database was away.
    """
    for each in causes(error):
        if is_databases(each) and alias_of(each) == DEFAULT_DB_ALIAS and is_outage(each):
            return each
    return None


def ours_to_blame(error: BaseException) -> Error | None:
    """Find our own database's part in an error raised in this thread.

    Our database is away, or has ended the transaction in favour of another transaction. Then the
    same call may work later.

    Returns:
        Our database's error; None where the caller's code or another database is at fault.
    """
    if (outage := our_outage(error)) is not None:
        return outage
    if not is_databases(error) or is_of_another(error):
        return None
    if is_conflict(error) or (is_outage(error) and not _does_ours_answer()):
        return error
    return None


def _does_ours_answer() -> bool:
    """Ask our database, over a new connection where none is open yet."""
    try:
        connection.ensure_connection()
    except Error:
        return False
    return bool(connection.is_usable())


def causes(error: BaseException) -> Iterator[BaseException]:
    """Walk through an error, the errors in its group, and the causes of each."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting.append(each.__cause__ or (None if each.__suppress_context__ else each.__context__))
        if issubclass(type(each), BaseExceptionGroup):
            waiting.extend(leaves(each))


def _frames(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next
