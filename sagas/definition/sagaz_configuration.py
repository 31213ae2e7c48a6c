"""Configure sagaz from `settings.SAGAZ`, and refuse any other configuration."""

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from sagaz import SagaConfig
from sagaz.core import config
from sagaz.core.storage.memory import InMemorySagaStorage

from saga_runtime.urls import scheme_of
from sagas.definition.sagaz_entry_points import original_of
from sagas.errors import SagaDefinitionError

JOURNAL_URL = "django://"
KEYS = ("STORAGE_URL", "BROKER_URL", "METRICS", "LOGGING", "TRACING")
_CONFIGURED_ELSEWHERE = (
    "sagaz.configure(…) was called: the storage is the journal, and the broker that of "
    "settings.SAGAZ. Leave it out, and set METRICS, LOGGING and TRACING in settings.SAGAZ"
)


def configure(sagaz: dict[str, Any], *, database_url: str) -> SagaConfig:
    """Configure sagaz.

    Args:
        sagaz: the value of `settings.SAGAZ`.
        database_url: the URL of Django's database, which may stand for the journal too.

    Returns:
        The configuration, for `check_unchanged`.

    Raises:
        ImproperlyConfigured: a key is unknown, or the journal is to be elsewhere.
        SagaDefinitionError: sagaz has been configured before, with a storage or a broker.
    """
    check_keys(sagaz)
    check_storage_url(sagaz, database_url=database_url)
    configuration = SagaConfig(
        metrics=sagaz.get("METRICS", False),
        logging=sagaz.get("LOGGING", False),
        tracing=sagaz.get("TRACING", False),
    )
    configuration.storage = None  # the journal is ours; left out, sagaz would keep one in memory
    apply(configuration)
    return configuration


def apply(configuration: SagaConfig) -> None:
    """Make this sagaz's configuration.

    Raises:
        SagaDefinitionError: sagaz has been configured before, with a storage or a broker.
    """
    # sagaz configures itself on first use, with a storage in memory: that may be replaced.
    before = getattr(config, "_global_config", None)
    if before is not None and (
        before.broker is not None or not isinstance(before.storage, InMemorySagaStorage | None)
    ):
        raise SagaDefinitionError(_CONFIGURED_ELSEWHERE)
    original_of(config.configure)(configuration)


def check_unchanged(configuration: SagaConfig) -> None:
    """Check, after the apps' modules are imported, that none of them has configured sagaz.

    Raises:
        SagaDefinitionError: sagaz has a different configuration.
    """
    if config.get_config() is not configuration:
        raise SagaDefinitionError(_CONFIGURED_ELSEWHERE)


def check_keys(sagaz: dict[str, Any]) -> None:
    """Refuse unknown keys of `settings.SAGAZ`.

    Raises:
        ImproperlyConfigured: a key is unknown; the text names the known keys.
    """
    for key in sagaz:
        if key not in KEYS:
            raise ImproperlyConfigured(
                f"settings.SAGAZ has the key {key!r}, which nothing reads: use {', '.join(KEYS)}"
            )


def check_storage_url(sagaz: dict[str, Any], *, database_url: str) -> None:
    """Check that the journal lives in the Django database.

    Raises:
        ImproperlyConfigured: SAGAZ_STORAGE_URL names another place.
    """
    url = sagaz.get("STORAGE_URL") or JOURNAL_URL
    if url in (JOURNAL_URL, database_url):
        return
    # The URL itself may hold a password: only its scheme is shown.
    elsewhere = f"({scheme}://…)" if (scheme := scheme_of(url)) else "(it is no URL)"
    raise ImproperlyConfigured(
        f"SAGAZ_STORAGE_URL names a journal elsewhere {elsewhere}, which could not commit "
        f"together with a step: use {JOURNAL_URL} or the same URL as DATABASE_URL"
    )
