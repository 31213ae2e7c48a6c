"""System check: do orders live where the outbox is? Otherwise no commit holds both together."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error
from django.db import DEFAULT_DB_ALIAS

from outbox.checks import routed_elsewhere

TAG = "orders"


def check_routers(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Name each model of orders that a router sends elsewhere. Its reads count too: a step that
    reads an order from a replica that lags would find none, and undo the saga."""
    config = apps.get_app_config("orders")
    if app_configs is not None and config not in app_configs:
        return []
    return [
        Error(
            f"a router of DATABASE_ROUTERS {elsewhere}: an order and its command would not commit "
            "together, or its steps would not find it",
            hint=(
                f"Let it answer {DEFAULT_DB_ALIAS!r}, for reads too, where "
                'model._meta.app_label is "orders".'
            ),
            obj=model,
            id="orders.E001",
        )
        for model in config.get_models()
        if (elsewhere := routed_elsewhere(model))
    ]
