"""The outbox. Invariant: a row that is present has not been published; there is no status.

On PostgreSQL `outbox_message` is partitioned by a column `segment` that no model here names: the
database fills it in from a sequence, so that whole segments can be emptied at once. It is no
ordering.
"""

import uuid

from django.db import models
from django.db.models import F
from django.utils import timezone

LANES = 32
"""A key belongs to one lane, a lane at any time to one relay. Change it on an empty outbox only."""


class Envelope(models.Model):
    """What a message is, whether it waits in the outbox or is parked."""

    message_id = models.UUIDField(default=uuid.uuid4, editable=False)
    topic = models.CharField(max_length=249)
    key = models.CharField(max_length=255)
    key_hash = models.BigIntegerField(help_text="murmur2 of the key")
    lane = models.GeneratedField(
        expression=F("key_hash") % LANES,
        output_field=models.IntegerField(),
        db_persist=True,
    )
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
        indexes = [models.Index(fields=["lane", "key", "id"], name="outbox_parked_by_key")]

    def __str__(self) -> str:
        return f"{self.id} {self.type} {self.key}"


class OutboxLane(models.Model):
    """Which relay a lane is leased to. `epoch` rises with each claim. PostgreSQL only."""

    lane = models.IntegerField(primary_key=True)
    owner = models.CharField(max_length=64, blank=True, default="")
    epoch = models.BigIntegerField(default=0)
    until = models.DateTimeField(default=timezone.now)

    class Meta:
        db_table = "outbox_lane"
        ordering = ("lane",)

    def __str__(self) -> str:
        return f"lane {self.lane} of {self.owner or 'nobody'}"


class OutboxRelay(models.Model):
    """A relay that works, while `until` lies ahead."""

    id = models.CharField(max_length=64, primary_key=True)
    lanes_max = models.IntegerField(
        default=LANES, db_default=LANES, help_text="how many lanes it takes at most"
    )
    started_at = models.DateTimeField(default=timezone.now)
    until = models.DateTimeField()

    class Meta:
        db_table = "outbox_relay"

    def __str__(self) -> str:
        return self.id


class ParkedIntervention(models.Model):
    """What a person did about a parked message. Rows are only ever added."""

    message = models.BigIntegerField(help_text="the id that the message had in the outbox")
    key = models.CharField(max_length=255)
    action = models.CharField(max_length=16)
    who = models.CharField(max_length=255)
    why = models.TextField()
    payload_before = models.BinaryField(null=True, help_text="where it was edited or skipped")
    before = models.JSONField(null=True, help_text="the rest of what it was, as far as it is lost")
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        db_table = "outbox_intervention"
        ordering = ("id",)

    def __str__(self) -> str:
        return f"{self.action} {self.message} by {self.who}"
