from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import register
from django.core.exceptions import ImproperlyConfigured

from saga_runtime.urls import scheme_of

JOURNAL_URL = "django://"
KEYS = ("STORAGE_URL", "BROKER_URL", "METRICS", "LOGGING", "TRACING")


class SagasConfig(AppConfig):
    name = "sagas"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Sagas"

    def ready(self) -> None:
        """Hand `settings.SAGAZ` to sagaz, find every app's sagas, register the checks."""
        from sagaz import SagaConfig

        from sagas import checks
        from sagas.definition import registry, sagaz_entry_points

        check_keys(settings.SAGAZ)
        check_storage_url(settings.SAGAZ, database_url=getattr(settings, "DATABASE_URL", ""))
        config = SagaConfig(
            metrics=settings.SAGAZ.get("METRICS", False),
            logging=settings.SAGAZ.get("LOGGING", False),
            tracing=settings.SAGAZ.get("TRACING", False),
        )
        config.storage = None  # the journal is ours; left out, sagaz would keep one in memory
        sagaz_entry_points.configure_once(config)
        sagaz_entry_points.close_doors()
        registry.discover()
        sagaz_entry_points.check_configuration(config)
        registry.check_references()
        register(checks.check_sagaz_integration, checks.TAG)
        register(checks.check_unfinished_sagas, checks.TAG, deploy=True)


def check_keys(sagaz: dict[str, Any]) -> None:
    """Refuse a key of `settings.SAGAZ` that nothing reads.

    Raises:
        ImproperlyConfigured: there is one.
    """
    for key in sagaz:
        if key not in KEYS:
            raise ImproperlyConfigured(
                f"settings.SAGAZ has the key {key!r}, which nothing reads: use {', '.join(KEYS)}"
            )


def check_storage_url(sagaz: dict[str, Any], *, database_url: str) -> None:
    """The journal must live in the Django database.

    Raises:
        ImproperlyConfigured: SAGAZ_STORAGE_URL names another place.
    """
    url = sagaz.get("STORAGE_URL") or JOURNAL_URL
    if url in (JOURNAL_URL, database_url):
        return
    elsewhere = f"({scheme}://…)" if (scheme := scheme_of(url)) else "(it is no URL)"
    raise ImproperlyConfigured(
        f"SAGAZ_STORAGE_URL names a journal elsewhere {elsewhere}, which could not commit "
        f"together with a step: use {JOURNAL_URL} or the same URL as DATABASE_URL"
    )
