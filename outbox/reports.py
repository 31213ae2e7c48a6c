"""Report on the outbox in plain JSON values, for people and programs that look after it."""

from typing import Any

from django.db import connection
from django.db.models import Count, Min
from django.db.models.functions import Now
from django.utils import timezone

from outbox.models import OutboxLane, OutboxRelay, ParkedIntervention, ParkedMessage
from outbox.queries import estimated_count, oldest_age, table_bytes


def status() -> dict[str, Any]:
    """Report about how many messages wait, what is parked, and on PostgreSQL who relays."""
    # Leases end by the database's clock.
    now = Now() if connection.vendor == "postgresql" else timezone.now()
    relays = OutboxRelay.objects.filter(until__gte=now).order_by("started_at")
    lanes = dict(
        OutboxLane.objects.filter(until__gte=now)
        .exclude(owner="")
        .values_list("owner")
        .annotate(Count("lane"))
    )
    return {
        "waiting": estimated_count(),
        "oldest_seconds": round(oldest_age().total_seconds(), 3),
        "parked_messages": ParkedMessage.objects.count(),
        "parked_keys": ParkedMessage.objects.order_by().values("key").distinct().count(),
        "bytes": table_bytes(),
        "relays": [
            {"id": relay.id, "since": relay.started_at.isoformat(), "lanes": lanes.get(relay.id, 0)}
            for relay in relays
        ],
    }


def parked(*, limit: int) -> list[dict[str, Any]]:
    """Report the keys with parked messages, each with its first message and the reason.

    Args:
        limit: keys at most, the longest parked first.
    """
    groups = (
        ParkedMessage.objects.order_by()
        .values("key")
        .annotate(first=Min("id"), messages=Count("id"))
        .order_by("first")[:limit]
    )
    firsts = ParkedMessage.objects.in_bulk([group["first"] for group in groups])
    return [_key(firsts[group["first"]], group["messages"]) for group in groups]


def interventions(*, limit: int) -> list[dict[str, Any]]:
    """Report what people did about parked messages, the newest first.

    Args:
        limit: interventions at most.
    """
    return [
        {
            "at": row.at.isoformat(),
            "action": row.action,
            "message": row.message,
            "key": row.key,
            "who": row.who,
            "why": row.why,
            "before": row.before,
        }
        for row in ParkedIntervention.objects.order_by("-id")[:limit]
    ]


def _key(first: ParkedMessage, messages: int) -> dict[str, Any]:
    return {
        "key": first.key,
        "messages": messages,
        "first_id": first.id,
        "topic": first.topic,
        "type": first.type,
        "bytes": len(bytes(first.payload)),
        "reason": first.reason,
        "parked_at": first.parked_at.isoformat(),
    }
