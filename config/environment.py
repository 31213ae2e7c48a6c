"""Read the settings' environment variables, and name the variable of an unreadable value."""

import math
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
import psycopg
from django.core.exceptions import ImproperlyConfigured

from saga_runtime.urls import redacted, scheme_of

SECRET_KEY_FILE = ".secret-key"  # noqa: S105 - a file name
POSTGRES_SCHEMES = ("postgres", "postgresql", "psql", "pgsql")
POOL_TIMEOUT_SECONDS = 5  # to get a connection, from the pool or from the server
IDLE_IN_TRANSACTION_SECONDS = 10

SQLITE_OPTIONS = {
    # Writers wait for each other from BEGIN on, and readers never wait.
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL",
}


LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
ON = ("true", "on", "yes", "1")
OFF = ("false", "off", "no", "0", "")


class Environment(environ.Env):
    """Read variables strictly: plain django-environ takes DEBUG=maybe for false and 1h for 1.0."""

    def bool(self, var: str, default: Any = environ.Env.NOTSET) -> Any:
        """Read a switch: true, on, yes, 1, or false, off, no, 0."""
        return self.get_value(var, cast=_switch, default=default)

    def float(
        self, var: str, default: Any = environ.Env.NOTSET, *, at_least: Any = -math.inf
    ) -> Any:
        """Read a finite number.

        Args:
            var: the variable.
            default: used where the variable is not set.
            at_least: the lowest allowed value.
        """
        return self._number(var, _finite, default, at_least)

    def int(self, var: str, default: Any = environ.Env.NOTSET, *, at_least: Any = -math.inf) -> Any:
        """Read a whole number.

        Args:
            var: the variable.
            default: used where the variable is not set.
            at_least: the lowest allowed value.
        """
        return self._number(var, int, default, at_least)

    def _number(self, var: str, cast: Any, default: Any, at_least: Any) -> Any:
        number = self.get_value(var, cast=cast, default=default)
        if number < at_least:
            raise ImproperlyConfigured(f"{var} is {number}; it must be {at_least} or more")
        return number

    def log_level(self, var: str, default: str) -> Any:
        """Read the name of a log level, in any case."""
        return self.get_value(var, cast=_log_level, default=default)

    def get_value(self, var: Any, *args: Any, **kwargs: Any) -> Any:
        """Read a value; a leading `$` is taken literally.

        django-environ takes `$NAME` for the name of another variable, and so a key of this kind for
        a variable that is not set.

        Raises:
            ImproperlyConfigured: the value cannot be read.
        """
        if os.environ.get(var, "").startswith("$"):
            return self.parse_value(os.environ[var], kwargs.get("cast", args[0] if args else None))
        try:
            return super().get_value(var, *args, **kwargs)
        except (ValueError, TypeError) as error:
            value = redacted(os.environ.get(var, ""))
            raise ImproperlyConfigured(f"{var} is {value!r}, which cannot be read") from error


def _switch(text: str) -> bool:
    if text.lower() not in ON + OFF:
        raise ValueError(f"use {', '.join(ON)} or {', '.join(OFF[:-1])}")
    return text.lower() in ON


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("must be finite")
    return number


def _log_level(text: str) -> str:
    if text.upper() not in LOG_LEVELS:
        raise ValueError(f"use one of {', '.join(LOG_LEVELS)}")
    return text.upper()


def database(
    env: Environment,
    *,
    base_dir: Path,
    idle_in_transaction_seconds: int = IDLE_IN_TRANSACTION_SECONDS,
) -> dict[str, Any]:
    """Build Django's settings for the database in DATABASE_URL.

    Args:
        env: the environment.
        base_dir: folder of the SQLite file where DATABASE_URL is not set.
        idle_in_transaction_seconds: after which PostgreSQL ends a transaction that does nothing.

    Raises:
        ImproperlyConfigured: the URL is unreadable, or names neither SQLite nor PostgreSQL.
    """
    url = env.str("DATABASE_URL", default=f"sqlite:///{base_dir / 'db.sqlite3'}")
    scheme = scheme_of(url)
    try:
        if scheme == "sqlite":
            return _sqlite(Environment.db_url_config(url))
        if scheme in POSTGRES_SCHEMES:
            _check_quoting(url)
            return _postgresql(Environment.db_url_config(url), env, idle_in_transaction_seconds)
    except (ValueError, KeyError) as error:
        raise ImproperlyConfigured(
            "DATABASE_URL cannot be read: use postgres://user:password@host:port/name, and write "
            "special characters percent-encoded"
        ) from error
    begins = f"begins with {scheme!r}" if scheme else "is no URL"
    raise ImproperlyConfigured(
        f"DATABASE_URL {begins}; use postgres://user:password@host:port/name or sqlite:///file"
    )


def _check_quoting(url: str) -> None:
    """Refuse a password with a raw `/`, `?` or `#`, which ends the URL's host part early.

    Otherwise the password's first half would be taken for a port, and be printed as a port.

    Raises:
        ValueError: the URL looks like that.
    """
    parts = urlsplit(url)
    if parts.fragment or "@" in f"{parts.path}{parts.query}":
        raise ValueError("not percent-encoded")


def _sqlite(config: dict[str, Any]) -> dict[str, Any]:
    if config["NAME"] in ("", ":memory:"):
        raise ImproperlyConfigured(
            "DATABASE_URL names a database in memory, which the parts cannot share: "
            "use sqlite:///file"
        )
    name = str(Path(config["NAME"]).absolute())
    return config | {
        "ENGINE": "config.sqlite",
        "NAME": name,
        "OPTIONS": SQLITE_OPTIONS,
        # Tests use a file too: an in-memory database locks whole tables between threads.
        "TEST": {"NAME": f"{name}.test-{os.getpid()}"},
    }


def _postgresql(
    config: dict[str, Any], env: Environment, idle_in_transaction_seconds: int
) -> dict[str, Any]:
    """Build the settings of psycopg 3: a pool per process, limits for statements and locks."""
    statement = env.float("DATABASE_STATEMENT_TIMEOUT", default=15.0, at_least=0)
    lock = env.float("DATABASE_LOCK_TIMEOUT", default=5.0, at_least=0.1)
    limits = (
        f"-c statement_timeout={statement * 1000:.0f} -c lock_timeout={lock * 1000:.0f}"
        # A worker that was stopped inside a step must not hold its rows for ever.
        f" -c idle_in_transaction_session_timeout={idle_in_transaction_seconds * 1000}"
    )
    pool = {
        "min_size": 1,
        "max_size": env.int("DATABASE_POOL_SIZE", default=25, at_least=1),
        "timeout": POOL_TIMEOUT_SECONDS,
        # Left alone, the pool doubles its pause as long as an outage lasts.
        "reconnect_timeout": 1.0,
    }
    options = {"connect_timeout": POOL_TIMEOUT_SECONDS, "options": limits, "pool": pool}
    return config | {
        # Asked of the pool: a connection that the server has dropped is not handed out.
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": config.get("OPTIONS", {}) | options,
    }


def direct_url(env: Environment) -> str:
    """Read DATABASE_DIRECT_URL: PostgreSQL past its pooler.

    Returns:
        A URL for libpq; empty where the variable is not set.

    Raises:
        ImproperlyConfigured: the URL is unreadable, or not PostgreSQL's.
    """
    url: str = env.str("DATABASE_DIRECT_URL", default="")
    scheme, separator, rest = url.partition("://")
    if not url:
        return ""
    try:
        psycopg.conninfo.conninfo_to_dict(direct := f"postgresql{separator}{rest}")
    except psycopg.ProgrammingError:
        direct = ""
    if scheme not in POSTGRES_SCHEMES or not direct:
        raise ImproperlyConfigured(
            "DATABASE_DIRECT_URL cannot be read: use postgres://user:password@host:port/name, or "
            "leave it empty where DATABASE_URL names no pooler"
        )
    return direct


def secret_key_file(database: dict[str, Any], *, base_dir: Path) -> Path:
    """Return the path of the key that `manage.py up` makes: beside the SQLite file."""
    is_file = database["ENGINE"] == "config.sqlite"
    return (Path(database["NAME"]).parent if is_file else base_dir) / SECRET_KEY_FILE


def secret_key(env: Environment, file: Path) -> str:
    """Read SECRET_KEY, else the key file; empty where there is neither."""
    key: str = env.str("SECRET_KEY", default="")
    if not key and file.is_file():
        key = file.read_text().strip()
    return key
