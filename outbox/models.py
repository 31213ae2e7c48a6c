"""Define the outbox's tables. Invariant: a row in the outbox has not been published.

There is no status column. On PostgreSQL `outbox_message` is partitioned by a column `segment`,
which no model names: the database fills it in from a sequence, so that whole segments can be
emptied at once. Segments are no ordering.
"""

import uuid

from django.db import models
from django.db.models import F
from django.utils import timezone

LANES = 32
"""A key belongs to one lane, and a lane at any time to one relay. Change the number only while the
outbox is empty."""


class Envelope(models.Model):
    """Hold what a message consists of, in the outbox and among the parked."""

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
    """Keep a message until it is published. Within a key, ids rise in the order of commits."""

    class Meta:
        db_table = "outbox_message"
        ordering = ("id",)

    def __str__(self) -> str:
        return f"{self.id} {self.type} {self.key}"


class ParkedMessage(Envelope):
    """Keep a message refused by the broker, or waiting behind a refused message of its key.

    Attributes:
        id: the id from the outbox, so that the order within the key is kept.
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
    """Record which relay leases a lane. PostgreSQL only.

    Attributes:
        owner: the relay's id; empty where the lane is free.
        epoch: rises with each claim.
        until: when the lease ends, by the database's clock.
    """

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
    """Record a relay at work.

    Attributes:
        until: when the relay counts as gone, by the database's clock.
    """

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
    """Record what a person did about a parked message. Rows are only ever added."""

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
