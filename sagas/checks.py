"""Check a project for parts of sagaz's Django integration, which would journal nothing.

With `--deploy`, check too whether the code can go on with the unfinished sagas in the database. A
wrong saga class is refused at every start, by `sagas.definition`.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's own name
from django.db import Error as DatabaseError
from django.db.models import Count, Exists, Min, OuterRef
from django.urls import URLResolver, get_resolver

from saga_runtime.text import one_line_error
from sagas.definition.registry import saga_type
from sagas.models import Saga, SagaQuerySet, SagaStep

TAG = "sagas"


def check_unfinished_sagas(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Check each unfinished saga for a registered class with the same steps."""
    if app_configs is not None and "sagas" not in [config.label for config in app_configs]:
        return []
    try:
        return [*_without_class(), *_with_other_steps()]
    except DatabaseError as error:
        return [
            Warning(
                f"whether unfinished sagas can go on is not known: {one_line_error(error)}",
                hint="Check again where the database answers and is migrated.",
                id="sagas.W001",
            )
        ]


def check_sagaz_integration(
    app_configs: Sequence[AppConfig] | None, **_: Any
) -> list[CheckMessage]:
    """Check the project for sagaz's Django integration."""
    if app_configs is not None and "sagas" not in [config.label for config in app_configs]:
        return []
    return [*_sagaz_middleware(), *_sagaz_views(_patterns())]


def _sagaz_middleware() -> Iterator[CheckMessage]:
    for path in settings.MIDDLEWARE:
        if path.startswith(f"{_INTEGRATION}."):
            yield Error(
                f"MIDDLEWARE has {path}, whose correlation id reaches no message and no saga",
                hint="Use outbox.middleware.CorrelationMiddleware.",
                id="sagas.E004",
            )


def _patterns() -> list[Any]:
    """Return the project's URL patterns; none where Django's own checks complain."""
    try:
        return list(get_resolver().url_patterns) if getattr(settings, "ROOT_URLCONF", "") else []
    except Exception:  # noqa: BLE001 - whatever the project's modules raise
        return []


def _sagaz_views(patterns: Iterable[Any]) -> Iterator[CheckMessage]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from _sagaz_views(pattern.url_patterns)
        elif getattr(pattern.callback, "__module__", "") == _INTEGRATION:
            yield Error(
                f"the URL {str(pattern.pattern)!r} goes to sagaz's {pattern.callback.__name__}, "
                "which would answer that an event is accepted, and journal nothing",
                hint=(
                    "Answer it in a view of your own that calls outbox.enqueue(…) in a "
                    "transaction, with the trigger's source as the message's type."
                ),
                id="sagas.E003",
            )


_INTEGRATION = "sagaz.integrations.django"


def _without_class() -> Iterator[CheckMessage]:
    for group in _grouped(Saga.objects.all(), "name", "version"):
        name, version = group["name"], group["version"]
        if saga_type(name, version) is None:
            yield Error(
                f"{_counted(group)} of {name!r}, version {version}, which is not registered: a "
                "consumer would park them",
                hint=(
                    f"Keep the class with saga_name {name!r} and `version = {version}` beside the "
                    "new one until its sagas have ended; see docs/how-to/change-a-saga.md."
                ),
                id="sagas.E001",
            )


def _with_other_steps() -> Iterator[CheckMessage]:
    begun = Saga.objects.filter(Exists(SagaStep.objects.filter(saga=OuterRef("pk"))))
    for group in _grouped(begun, "name", "version", "definition_hash"):
        name, version = group["name"], group["version"]
        found = saga_type(name, version)
        if found is not None and found.definition_hash != group["definition_hash"]:
            yield Error(
                f"{_counted(group)} of {name!r}, version {version}, with other steps than its "
                "class has now: a consumer would park them",
                hint=(
                    f"Give {found.saga_class.__qualname__} the version {version + 1}, and keep the "
                    f"old class as version {version} beside it until its sagas have ended; see "
                    "docs/how-to/change-a-saga.md."
                ),
                id="sagas.E002",
            )


def _grouped(sagas: SagaQuerySet, *by: str) -> list[dict[str, Any]]:
    groups = sagas.unfinished().values(*by).order_by(*by)
    return list(groups.annotate(count=Count("id"), example=Min("key")))


def _counted(group: dict[str, Any]) -> str:
    sagas = "1 saga has" if group["count"] == 1 else f"{group['count']} sagas have"
    begun = "begun" if "definition_hash" in group else "been accepted"
    return f"{sagas} {begun} and not ended (such as {group['example']!r})"
