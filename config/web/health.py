"""Check readiness: can orders be taken, and are they on their way?"""

from collections.abc import Iterator

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.loader import MigrationLoader
from ninja import Schema

from config.web.database_writes import why_no_writes
from outbox.queries import oldest_age
from saga_runtime.logs import get_logger
from saga_runtime.text import one_line_error
from saga_runtime.urls import redacted

logger = get_logger(__name__)
_was_ready = True


class Check(Schema):
    """Hold the result of one check."""

    name: str
    ok: bool
    detail: str


class Readiness(Schema):
    """Hold the result of all checks.

    Attributes:
        status: `ready`, or `unavailable` where a check is not ok.
        detail: the reasons of all failed checks; empty where ready.
    """

    status: str
    detail: str
    checks: list[Check]


def readiness() -> Readiness:
    """Run the checks; a database that does not answer ends them."""
    checks: list[Check] = []
    try:
        checks.extend(_checks())
    except DatabaseError as error:
        connection.close()
        detail = f"the database does not answer: {one_line_error(error)}"
        checks.append(Check(name="database", ok=False, detail=detail))
    failed = [check.detail for check in checks if not check.ok]
    _log_change("; ".join(failed))
    return Readiness(
        status="unavailable" if failed else "ready", detail="; ".join(failed), checks=checks
    )


def _log_change(failed: str) -> None:
    """Log a line when readiness is lost, and a line when it returns; most probes log none."""
    global _was_ready  # noqa: PLW0603 - of the process
    if failed and _was_ready:
        logger.warning("not ready: %s", failed)
    elif not failed and not _was_ready:
        logger.info("ready again")
    _was_ready = not failed


def _checks() -> Iterator[Check]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    yield Check(name="database", ok=True, detail="answers")
    migrations = _migrations()
    yield migrations
    if migrations.ok:
        yield _writes()
        yield _outbox()


def _writes() -> Check:
    reason = why_no_writes()
    if reason:
        return Check(name="writes", ok=False, detail=f"the database takes no writes: {reason}")
    return Check(name="writes", ok=True, detail="taken")


def _migrations() -> Check:
    """Check for missing migrations: the newest alone says nothing of the others.

    Migrations known to the database alone are fine: it is migrated before new code starts.
    """
    loader = MigrationLoader(connection)
    missing = sorted(key for key in loader.graph.nodes if key not in loader.applied_migrations)
    if missing:
        first = ".".join(missing[0])
        detail = f"{len(missing)} migration(s) are not applied ({first}): run manage.py migrate"
        return Check(name="migrations", ok=False, detail=detail)
    return Check(name="migrations", ok=True, detail="applied")


def _outbox() -> Check:
    age = oldest_age().total_seconds()
    limit = settings.OUTBOX_MAX_AGE
    if age <= limit:
        return Check(name="outbox", ok=True, detail=f"the oldest message has waited {age:.1f} s")
    detail = (
        f"the oldest message in the outbox has waited {age:.0f} s (limit {limit:.0f} s): "
        f"is the relay running, and does the broker {_broker()} answer?"
    )
    return Check(name="outbox", ok=False, detail=detail)


def _broker() -> str:
    return redacted(settings.SAGAZ["BROKER_URL"])
