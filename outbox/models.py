"""The outbox. Invariant: a row that is present has not been published; there is no status."""

import uuid

from django.db import models
from django.utils import timezone


class Envelope(models.Model):
    """What a message is, whether it waits in the outbox or is parked."""

    message_id = models.UUIDField(default=uuid.uuid4, editable=False)
    topic = models.CharField(max_length=249)
    key = models.CharField(max_length=255)
    key_hash = models.BigIntegerField(help_text="murmur2 of the key; its lane is key_hash % lanes")
    type = models.CharField(max_length=255)
    payload = models.BinaryField(help_text="the exact bytes that are sent")
    headers = models.JSONField(default=dict, blank=True)
    correlation_id = models.CharField(max_length=128, blank=True, default="")
    traceparent = models.CharField(max_length=64, blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        abstract = True


class OutboxMessage(Envelope):
    """A message not yet published. Within a key, ids rise in the order of commit."""

    class Meta:
        db_table = "outbox_message"
        ordering = ("id",)

    def __str__(self) -> str:
        return f"{self.id} {self.type} {self.key}"


class ParkedMessage(Envelope):
    """A message that the broker refuses by itself, or one of the same key that waits behind it.

    `id` is the id that it had in the outbox, so that the order within its key is kept.
    """

    id = models.BigIntegerField(primary_key=True)
    reason = models.TextField()
    parked_at = models.DateTimeField(default=timezone.now)

    class Meta:
        db_table = "outbox_parked"
        ordering = ("id",)

    def __str__(self) -> str:
        return f"{self.id} {self.type} {self.key}"
