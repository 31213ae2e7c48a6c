"""What is asked about sagas from outside."""

from collections.abc import Collection
from uuid import UUID

from sagas.models import ACTIVE, Saga

ACTIVE_STATUSES = frozenset(status.value for status in ACTIVE)


def statuses(ids: Collection[UUID]) -> dict[UUID, str]:
    """The status of each of these sagas that a consumer has accepted."""
    return dict(Saga.objects.filter(id__in=ids).values_list("id", "status"))
