"""Describe in one line a failure that the person at the command can mend."""

import re

import psycopg
import psycopg_pool
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError, InternalError, OperationalError, connection

from brokers import BrokerError
from saga_runtime.text import one_line_error

_CLEARER_TEXTS = {
    "The SECRET_KEY setting must not be empty": "SECRET_KEY is not set: set it, "
    "or run `manage.py up` once, which keeps one of its own in a file"
}
_ACCESS_DENIED = (
    "authentication failed|does not exist|no pg_hba.conf entry|permission denied|no password"
)


def describe_failure(error: Exception) -> str | None:
    """Describe an error of the environment: the database, a setting, the broker.

    Returns:
        One line with what to do, or None for a bug of ours.
    """
    text = _one_line(error)
    match error:
        case DatabaseError() if re.search("no such table|relation .* does not exist", text):
            return f"{_database_name()} has no tables yet: {text}. Run manage.py migrate."
        case DatabaseError() if re.search("not a database|malformed", text):
            return f"{_database_name()} is damaged: {text}. Name another one in DATABASE_URL."
        case OperationalError() | InterfaceError() | InternalError() | psycopg_pool.PoolTimeout():
            reason = _reason(error)
            if re.search(_ACCESS_DENIED, reason):
                return f"{_database_name()} does not let us in: {reason}. Correct DATABASE_URL."
            return f"{_database_name()} does not answer: {reason}. Start it, or set DATABASE_URL."
        case ImproperlyConfigured() | BrokerError():
            return _CLEARER_TEXTS.get(text, text)
    return None


def _one_line(error: BaseException) -> str:
    """Put an error's text on one line without control characters."""
    return one_line_error(error).rstrip(".?")


def _reason(error: Exception) -> str:
    """Find out why there is no connection: a pool does not say, a try without the pool does."""
    if connection.vendor == "postgresql" and "connection" in str(error):
        params = connection.get_connection_params()
        params.pop("pool", None)
        try:
            psycopg.connect(**params).close()
        except psycopg.Error as direct:
            # The text before names the server, which our own line names already.
            return _one_line(direct).rpartition(" failed: ")[2]
    return _one_line(error)


def _database_name() -> str:
    config = settings.DATABASES["default"]
    if not config.get("HOST"):
        return f"the database {config['NAME']}"
    return f"the database {config['NAME']} at {config['HOST']}:{config.get('PORT') or 5432}"
