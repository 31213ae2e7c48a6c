"""What a command says when it fails through no fault of its own: one line, and what to do."""

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import InterfaceError, OperationalError, ProgrammingError

from brokers import BrokerError


def one_line(error: Exception) -> str | None:
    """The line for an error that the person at the command can mend, or None for a bug of ours."""
    match error:
        case OperationalError() | InterfaceError():
            return f"{_database()} does not answer: {flat(error)}. Start it, or set DATABASE_URL."
        case ProgrammingError() if "does not exist" in str(error):
            return f"{_database()} has no tables yet: {flat(error)}. Run manage.py migrate."
        case ImproperlyConfigured() | BrokerError():
            return flat(error)
    return None


def flat(error: BaseException) -> str:
    """The error's text in one line."""
    return " ".join(str(error).split()).rstrip(".")


def _database() -> str:
    config = settings.DATABASES["default"]
    if not config.get("HOST"):
        return f"the database {config['NAME']}"
    return f"the database {config['NAME']} at {config['HOST']}:{config.get('PORT') or 5432}"
