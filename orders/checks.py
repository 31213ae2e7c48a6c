"""Check that orders live in the outbox's database.

Otherwise no commit would hold both together.
"""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error
from django.db import DEFAULT_DB_ALIAS

from outbox.checks import routed_elsewhere

TAG = "orders"


def check_routers(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Check that no router sends a model of orders to another database, for writes or reads.

    Reads count too: a step that reads an order from a lagging replica would find none, and undo the
    saga.

    Args:
        app_configs: the apps to check; None for all.

    Returns:
        An error for each model sent elsewhere.
    """
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
