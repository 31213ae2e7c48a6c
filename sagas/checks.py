"""System checks of `manage.py check --deploy`: whether this code can go on with the sagas that the
database holds. What is wrong with a saga's class itself is refused at every start, by the
registry."""

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's own name
from django.db import Error as DatabaseError
from django.db.models import Count, Exists, Min, OuterRef

from sagas.models import Saga, SagaQuerySet, SagaStep
from sagas.registry import saga_type

TAG = "sagas"


def check_unfinished_sagas(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Is each unfinished saga's class still here, with the steps with which it began?"""
    if app_configs is not None and "sagas" not in [config.label for config in app_configs]:
        return []
    try:
        return [*_without_class(), *_with_other_steps()]
    except DatabaseError as error:
        return [
            Warning(
                f"whether unfinished sagas can go on is not known: {' '.join(str(error).split())}",
                hint="Check again where the database answers and is migrated.",
                id="sagas.W001",
            )
        ]


def _without_class() -> Iterator[CheckMessage]:
    for group in _grouped(Saga.objects.all(), "name", "version"):
        name, version = group["name"], group["version"]
        if saga_type(name, version) is None:
            yield Error(
                f"{_counted(group)} of {name!r}, version {version}, which is not registered: a "
                "consumer would park them",
                hint=(
                    f"Keep the class with saga_name {name!r} and `version = {version}` beside the "
                    "new one until its sagas have ended; see docs/deploy.md."
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
                    "docs/deploy.md."
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
