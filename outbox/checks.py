"""Check the database settings at the start of every command.

Settings are refused with which the outbox, the relay or the sagas would fail late, or lose an
order.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import django
import psycopg
from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's name
from django.db import DEFAULT_DB_ALIAS, connections, router
from django.db.models import Model

TAG = "outbox"
APP_LABELS = ("outbox", "sagas")
OLDEST_DJANGO = (5, 2)
VENDORS = ("postgresql", "sqlite")
_ROUTER_CALLS = 30  # a router may choose a replica by chance, so one call proves nothing


def check_database(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Check the default database's settings.

    Args:
        app_configs: the apps to check; None for all.

    Returns:
        An error for each setting in need of a change.
    """
    if app_configs is not None and "outbox" not in [config.label for config in app_configs]:
        return []
    return [*_versions(), *_database(), *_routers()]


def _versions() -> Iterator[CheckMessage]:
    """Yield what is wrong with the libraries as they are installed."""
    if django.VERSION < OLDEST_DJANGO:
        yield Error(
            f"Django {django.get_version()} is older than {'.'.join(map(str, OLDEST_DJANGO))}",
            hint="Django 5.2 has what the outbox needs of connection pools and defaults.",
            id="outbox.E005",
        )
    is_slow = psycopg.pq.__impl__ == "python"
    if connections[DEFAULT_DB_ALIAS].vendor == "postgresql" and is_slow:
        yield Warning(
            "psycopg runs without its part in C: statements take several times as long",
            hint="pip install 'psycopg[binary]', or 'psycopg[c]' to build it.",
            id="outbox.W001",
        )


def _database() -> Iterator[CheckMessage]:
    """Yield errors of the default database's own settings."""
    database = connections[DEFAULT_DB_ALIAS]
    options = database.settings_dict.get("OPTIONS", {})
    if database.vendor not in VENDORS:
        yield Error(
            f"the outbox cannot be in a database of the kind {database.display_name}",
            hint="Use PostgreSQL, or SQLite for one process on one machine.",
            id="outbox.E001",
        )
    if options.get("server_side_binding"):
        yield Error(
            "server_side_binding: several statements cannot go out in one round trip with it, as "
            "the outbox, the relay and the sagas send them",
            hint='Leave "server_side_binding" out of DATABASES["default"]["OPTIONS"].',
            id="outbox.E002",
        )
    if not database.settings_dict.get("AUTOCOMMIT", True):
        yield Error(
            "AUTOCOMMIT is off: what the relay and the sagas write would not be committed",
            hint='Leave "AUTOCOMMIT" out of DATABASES["default"].',
            id="outbox.E003",
        )


def _routers() -> Iterator[CheckMessage]:
    """Yield an error for each model sent to another database by a router."""
    for model in _models():
        elsewhere = routed_elsewhere(model)
        if elsewhere:
            yield Error(
                f"a router of DATABASE_ROUTERS {elsewhere}: the order within a key would break, "
                "and what a commit holds together would be torn apart",
                hint=(
                    f"Let it answer {DEFAULT_DB_ALIAS!r}, for reads too, where "
                    f'model._meta.app_label is in ("outbox", "sagas").'
                ),
                obj=model,
                id="outbox.E004",
            )


def _models() -> Iterator[type[Model]]:
    """Yield the models bound to the default database."""
    for label in APP_LABELS:
        if apps.is_installed(label):
            yield from apps.get_app_config(label).get_models()


def routed_elsewhere(model: type[Model]) -> str:
    """Say how a router sends a model away from the default database.

    Args:
        model: a model bound to the default database.

    Returns:
        A text such as `reads from 'replica'`; empty where the router is fine.
    """
    for does, ask in (("reads from", router.db_for_read), ("writes to", router.db_for_write)):
        found = {ask(model) for _ in range(_ROUTER_CALLS)} - {DEFAULT_DB_ALIAS}
        if found:
            return f"{does} {sorted(found)[0]!r}"
    if not router.allow_migrate_model(DEFAULT_DB_ALIAS, model):
        return f"allows no table in {DEFAULT_DB_ALIAS!r}"
    return ""
