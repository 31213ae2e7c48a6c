"""Reads the settings' environment variables; a value that cannot be read names its variable."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

SECRET_KEY_FILE = ".secret-key"  # noqa: S105 - a file name

SQLITE_OPTIONS = {
    # Writers wait for each other from BEGIN on, and readers for nobody.
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL",
}


class Environment(environ.Env):
    def get_value(self, var: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().get_value(var, *args, **kwargs)
        except (ValueError, TypeError) as error:
            raise ImproperlyConfigured(
                f"the environment variable {var} cannot be read: {error}"
            ) from error


def database(env: Environment, *, base_dir: Path) -> dict[str, Any]:
    """Django's settings for the database that DATABASE_URL names."""
    url = env.str("DATABASE_URL", default=f"sqlite:///{base_dir / 'db.sqlite3'}")
    scheme = urlsplit(url).scheme
    if scheme == "sqlite":
        return sqlite(url)
    raise ImproperlyConfigured(
        f"DATABASE_URL begins with {scheme or url!r}; use postgres://user:password@host:port/name "
        "or sqlite:///file"
    )


def sqlite(url: str) -> dict[str, Any]:
    config: dict[str, Any] = Environment.db_url_config(url)
    name = str(Path(config["NAME"]).absolute())
    # Tests use a file too: an in-memory database locks whole tables between threads.
    return config | {
        "ENGINE": "config.sqlite",
        "NAME": name,
        "OPTIONS": SQLITE_OPTIONS,
        "TEST": {"NAME": f"{name}.test"},
    }


def secret_key_file(databases: dict[str, Any], *, base_dir: Path) -> Path:
    """Where `manage.py up` keeps the key that it makes: beside the SQLite file."""
    default = databases["default"]
    is_file = default["ENGINE"] == "config.sqlite"
    return (Path(default["NAME"]).parent if is_file else base_dir) / SECRET_KEY_FILE


def secret_key(env: Environment, file: Path) -> str:
    """SECRET_KEY, or the key in that file, or nothing: Django refuses to serve with none."""
    key: str = env.str("SECRET_KEY", default="")
    if not key and file.is_file():
        key = file.read_text().strip()
    return key
