"""Look up statuses of sagas, for an app's own views."""

from collections.abc import Collection
from uuid import UUID

from sagas.models import ACTIVE, Saga

ACTIVE_STATUSES = frozenset(status.value for status in ACTIVE)
"""The statuses, as texts, of sagas that a worker has still to finish."""


def statuses(ids: Collection[UUID]) -> dict[UUID, str]:
    """Map the ids of accepted sagas to their statuses; an id without a saga is left out."""
    return dict(Saga.objects.filter(id__in=ids).values_list("id", "status"))
