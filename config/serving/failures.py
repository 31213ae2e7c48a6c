"""What a command says when it fails through no fault of its own: one line, and what to do."""

import re

import psycopg
import psycopg_pool
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError, InternalError, OperationalError, connection

from brokers import BrokerError
from saga_runtime.text import one_line_error

_CLEARER = {
    "The SECRET_KEY setting must not be empty": "SECRET_KEY is not set: set it, "
    "or run `manage.py up` once, which keeps one of its own in a file"
}
_REFUSED = "authentication failed|does not exist|no pg_hba.conf entry|permission denied|no password"


def one_line(error: Exception) -> str | None:
    """The line for an error that the person at the command can mend, or None for a bug of ours."""
    text = flat(error)
    match error:
        case DatabaseError() if re.search("no such table|relation .* does not exist", text):
            return f"{_database()} has no tables yet: {text}. Run manage.py migrate."
        case DatabaseError() if re.search("not a database|malformed", text):
            return f"{_database()} is damaged: {text}. Name another one in DATABASE_URL."
        case OperationalError() | InterfaceError() | InternalError() | psycopg_pool.PoolTimeout():
            reason = _reason(error)
            if re.search(_REFUSED, reason):
                return f"{_database()} does not let us in: {reason}. Correct DATABASE_URL."
            return f"{_database()} does not answer: {reason}. Start it, or set DATABASE_URL."
        case ImproperlyConfigured() | BrokerError():
            return _CLEARER.get(text, text)
    return None


def flat(error: BaseException) -> str:
    """The error's text in one line that a terminal cannot obey."""
    return one_line_error(error).rstrip(".?")


def _reason(error: Exception) -> str:
    """A pool only says that it got no connection; a try without it says why."""
    if connection.vendor == "postgresql" and "connection" in str(error):
        params = connection.get_connection_params()
        params.pop("pool", None)
        try:
            psycopg.connect(**params).close()
        except psycopg.Error as direct:
            # Before it stands where the server is, which is told already.
            return flat(direct).rpartition(" failed: ")[2]
    return flat(error)


def _database() -> str:
    config = settings.DATABASES["default"]
    if not config.get("HOST"):
        return f"the database {config['NAME']}"
    return f"the database {config['NAME']} at {config['HOST']}:{config.get('PORT') or 5432}"
