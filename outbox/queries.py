"""What is asked about the outbox from outside."""

from datetime import timedelta

from django.utils import timezone

from outbox.models import OutboxMessage


def oldest_age() -> timedelta:
    """How long the oldest unpublished message has waited; zero where there is none."""
    created_at = OutboxMessage.objects.order_by("id").values_list("created_at", flat=True).first()
    return timezone.now() - created_at if created_at else timedelta()
