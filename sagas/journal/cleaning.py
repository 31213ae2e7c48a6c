"""Delete ended sagas and old inbox rows, a batch at a time.

A DELETE of millions of rows ends with the statement timeout, and is rolled back each time.
"""

from collections.abc import Collection
from datetime import datetime
from typing import TypeVar

from django.db import transaction
from django.db.models import Model, QuerySet

from sagas.models import ENDED, InboxMessage, Saga, SagaStatus

T = TypeVar("T", bound=Model)

BATCH = 500
"""Rows of a transaction, unless the caller says otherwise."""


def clean_sagas(
    *, older_than: datetime, statuses: Collection[SagaStatus] = ENDED, batch: int = BATCH
) -> int:
    """Delete sagas that ended before a moment, with all their rows in the journal.

    Args:
        older_than: the moment.
        statuses: the statuses of sagas to delete; only ended sagas may be deleted.
        batch: sagas of a transaction; batches stay deleted where a later batch fails.

    Returns:
        How many sagas were deleted.
    """
    # Those that ended before it also began before it, and that has an index.
    old = Saga.objects.filter(created_at__lt=older_than)
    ended = old.filter(status__in=statuses, finished_at__lt=older_than)
    return _delete(ended, "sagas.Saga", by="created_at", batch=batch)


def clean_inbox(*, older_than: datetime, batch: int = BATCH) -> int:
    """Delete inbox rows of messages that were accepted before a moment.

    Args:
        older_than: the moment. No topic may still hold an older message, or the message could be
            accepted again.
        batch: rows of a transaction.

    Returns:
        How many rows were deleted.
    """
    accepted = InboxMessage.objects.filter(received_at__lt=older_than)
    return _delete(accepted, "sagas.InboxMessage", by="received_at", batch=batch)


def _delete(rows: QuerySet[T], model: str, *, by: str, batch: int) -> int:
    """Delete rows in the order of an indexed moment, the column `by`."""
    deleted = 0
    rest = rows.order_by(by).values_list("pk", by)
    while found := list(rest[:batch]):
        with transaction.atomic():
            _, counts = rows.filter(pk__in=[pk for pk, _ in found]).delete()
        deleted += counts.get(model, 0)
        # The next batch begins where this one ended: among dead rows a search gets ever slower.
        rest = rest.filter(**{f"{by}__gte": found[-1][1]})
    return deleted
