"""Deletes what is no longer needed, a batch at a time: one DELETE of millions of rows ends with the
statement timeout, and is rolled back each time.
"""

from collections.abc import Collection
from datetime import datetime
from typing import TypeVar

from django.db import transaction
from django.db.models import Model, QuerySet

from sagas.models import ENDED, InboxMessage, Saga, SagaStatus

T = TypeVar("T", bound=Model)

BATCH = 500


def clean_sagas(*, older_than: datetime, statuses: Collection[SagaStatus] = ENDED) -> int:
    """Delete sagas that ended before that moment, with all that the journal has of them. Returns
    how many; batches that are done stay done where a later one fails."""
    # Those that ended before it also began before it, and that has an index.
    old = Saga.objects.filter(created_at__lt=older_than)
    ended = old.filter(status__in=statuses, finished_at__lt=older_than)
    return _delete(ended, "sagas.Saga", by="created_at")


def clean_inbox(*, older_than: datetime) -> int:
    """Delete inbox rows of messages that were accepted before that moment. Returns how many.

    Args:
        older_than: no topic may still hold a message from before it, or it could be accepted again.
    """
    accepted = InboxMessage.objects.filter(received_at__lt=older_than)
    return _delete(accepted, "sagas.InboxMessage", by="received_at")


def _delete(rows: QuerySet[T], model: str, *, by: str) -> int:
    """Args:
    by: an indexed moment. Each batch begins where the last one ended, not among what it deleted.
    """
    deleted = 0
    rest = rows.order_by(by).values_list("pk", by)
    while batch := list(rest[:BATCH]):
        with transaction.atomic():
            _, counts = rows.filter(pk__in=[pk for pk, _ in batch]).delete()
        deleted += counts.get(model, 0)
        rest = rest.filter(**{f"{by}__gte": batch[-1][1]})
    return deleted
