"""What the relay does to the outbox's tables. Each function is one transaction."""

from collections.abc import Collection, Iterable

from django.db import transaction

from outbox.models import Envelope, OutboxMessage, ParkedMessage

_ENVELOPE = [field.name for field in Envelope._meta.get_fields()]  # noqa: SLF001 - Django's API


def head(*, limit: int, besides: Collection[int]) -> list[OutboxMessage]:
    """The first rows of the outbox, without those in flight. From the head each time: a cursor
    would step over rows that commit late."""
    rows = OutboxMessage.objects.order_by("id")
    return list((rows.exclude(id__in=besides) if besides else rows)[:limit])


def first_of(ids: Collection[int]) -> OutboxMessage | None:
    """The first of these rows that is still in the outbox."""
    return OutboxMessage.objects.filter(id__in=ids).order_by("id").first()


def delete(ids: Collection[int]) -> None:
    """Delete what the broker has acknowledged."""
    OutboxMessage.objects.filter(id__in=ids).delete()


def parked_keys(rows: Iterable[OutboxMessage]) -> set[str]:
    """Which of these rows' keys have a parked message, behind which they must wait."""
    keys = {row.key for row in rows}
    return set(ParkedMessage.objects.filter(key__in=keys).values_list("key", flat=True))


def park(keys: Collection[str], *, reasons: dict[int, str]) -> int:
    """Move every outbox row of these keys to the parked messages, in order; returns how many."""
    with transaction.atomic():
        rows = list(OutboxMessage.objects.filter(key__in=keys).order_by("id"))
        ParkedMessage.objects.bulk_create(_parked(row, reasons) for row in rows)
        delete([row.id for row in rows])
    return len(rows)


def _parked(row: OutboxMessage, reasons: dict[int, str]) -> ParkedMessage:
    reason = reasons.get(row.id, "waits behind a parked message of its key")
    return ParkedMessage(
        id=row.id, reason=reason, **{name: getattr(row, name) for name in _ENVELOPE}
    )
