"""System checks of every command: whether the database settings are ones that the outbox, the relay
and the sagas can work with. What is refused here would fail late, or lose an order."""

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error
from django.db import DEFAULT_DB_ALIAS, connections, router
from django.db.models import Model

TAG = "outbox"
OURS = ("outbox", "sagas")
VENDORS = ("postgresql", "sqlite")
# A router may choose a replica by chance.
_ASKED = 30


def check_database(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Are the default database's settings ones that can work?"""
    if app_configs is not None and "outbox" not in [config.label for config in app_configs]:
        return []
    return [*_database(), *_routers()]


def _database() -> Iterator[CheckMessage]:
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
    for label in OURS:
        if apps.is_installed(label):
            yield from apps.get_app_config(label).get_models()


def routed_elsewhere(model: type[Model]) -> str:
    """Find what a router does with a model that must live in the default database.

    Returns:
        As in `reads from 'replica'`; empty where the router leaves it there.
    """
    for does, ask in (("reads from", router.db_for_read), ("writes to", router.db_for_write)):
        found = {ask(model) for _ in range(_ASKED)} - {DEFAULT_DB_ALIAS}
        if found:
            return f"{does} {sorted(found)[0]!r}"
    if not router.allow_migrate_model(DEFAULT_DB_ALIAS, model):
        return f"allows no table in {DEFAULT_DB_ALIAS!r}"
    return ""
