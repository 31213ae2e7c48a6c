"""The journal of every saga, and the inbox through which commands become sagas."""

from datetime import datetime

from django.db import models
from django.db.models import Q
from django.utils import timezone


class SagaStatus(models.TextChoices):
    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    COMPENSATING = "compensating"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    ROLLED_BACK = "rolled_back"
    PARKED = "parked"


ACTIVE = (
    SagaStatus.PENDING,
    SagaStatus.RUNNING,
    SagaStatus.WAITING,
    SagaStatus.COMPENSATING,
    SagaStatus.CANCELLING,
)
UNFINISHED = (*ACTIVE, SagaStatus.PARKED)
ENDED = (SagaStatus.COMPLETED, SagaStatus.ROLLED_BACK)
# A saga on its usual way is pending, running and then completed.
_UNUSUAL = (
    SagaStatus.WAITING,
    SagaStatus.COMPENSATING,
    SagaStatus.CANCELLING,
    SagaStatus.PARKED,
    SagaStatus.ROLLED_BACK,
)
# All rows. Beside a condition on the status it lets PostgreSQL use both partial indexes, one for
# those that are paused, and reads no saga that ended as usual.
PAUSED_OR_NOT = Q(paused=False) | Q(paused=True)


class SagaQuerySet(models.QuerySet["Saga"]):
    def claimable(self, now: datetime) -> "SagaQuerySet":
        """Those that a worker may take: new, due again, or left by a worker whose lease ran out."""
        return self.filter(status__in=ACTIVE, paused=False, next_run_at__lte=now)

    def having(self, status: str) -> "SagaQuerySet":
        return self.filter(PAUSED_OR_NOT, status=status)

    def unfinished(self) -> "SagaQuerySet":
        """Those that still run, and those that are parked."""
        return self.filter(Q(PAUSED_OR_NOT, status__in=ACTIVE) | Q(status=SagaStatus.PARKED))


class Saga(models.Model):
    """One saga. Its id is derived from its name and business key, so it can exist only once.

    `epoch` rises with each claim; a worker may write only under the epoch that it claimed.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    name = models.CharField(max_length=255)
    key = models.CharField(max_length=255)
    version = models.PositiveIntegerField(default=1)
    definition_hash = models.CharField(max_length=64)
    input = models.TextField(help_text="the context it started with, encoded")
    status = models.CharField(max_length=16, choices=SagaStatus.choices, default=SagaStatus.PENDING)
    paused = models.BooleanField(default=False)
    epoch = models.PositiveBigIntegerField(default=0)
    worker = models.CharField(max_length=64, blank=True, default="")
    next_run_at = models.DateTimeField(
        default=timezone.now, help_text="when a worker may claim it; while it runs, the lease's end"
    )
    deadline = models.DateTimeField(
        null=True, blank=True, help_text="when it is undone, or past its pivot parked"
    )
    takeovers = models.PositiveIntegerField(
        default=0, db_default=0, help_text="workers that it lost in a row without getting on"
    )
    past_pivot = models.BooleanField(
        default=False, db_default=False, help_text="it can no longer be undone"
    )
    cancel_reason = models.TextField(
        blank=True, default="", db_default="", help_text="why a cancel was asked for, if one was"
    )
    cancelled = models.BooleanField(
        default=False, db_default=False, help_text="a cancel decided against it"
    )
    failure = models.TextField(blank=True, default="", help_text="what decided against it")
    park_reason = models.TextField(blank=True, default="")
    correlation_id = models.CharField(max_length=128, blank=True, default="")
    traceparent = models.CharField(max_length=64, blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = SagaQuerySet.as_manager()

    class Meta:
        db_table = "sagas_saga"
        indexes = [
            models.Index(
                fields=["next_run_at"],
                name="sagas_claimable",
                condition=Q(status__in=ACTIVE, paused=False),
            ),
            models.Index(fields=["key"], name="sagas_by_key"),
            models.Index(fields=["-created_at"], name="sagas_newest"),
            # A saga on its usual way is never in it: it costs such a saga nothing.
            models.Index(
                fields=["status", "-created_at"],
                name="sagas_unusual",
                condition=Q(status__in=_UNUSUAL) | Q(paused=True),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.key}"


class StepKind(models.TextChoices):
    FORWARD = "F"
    COMPENSATION = "C"


class StepStatus(models.TextChoices):
    STARTED = "started"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


MAY_HAVE_HAPPENED = (StepStatus.STARTED, StepStatus.DONE, StepStatus.UNKNOWN)


class SagaStep(models.Model):
    """What the journal knows of one step, forward or compensating."""

    saga = models.ForeignKey(Saga, on_delete=models.CASCADE, related_name="steps")
    step = models.CharField(max_length=255)
    kind = models.CharField(max_length=1, choices=StepKind.choices)
    status = models.CharField(max_length=16, choices=StepStatus.choices)
    attempt = models.PositiveIntegerField(default=1, help_text="the number of the last attempt")
    failures = models.PositiveIntegerField(
        default=0, db_default=0, help_text="attempts that failed, of those that max_retries allows"
    )
    key = models.CharField(max_length=600, help_text="idempotency key")
    result = models.TextField(blank=True, default="")
    error = models.TextField(blank=True, default="")
    resolved_by = models.CharField(max_length=255, blank=True, default="")
    started_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "sagas_step"
        constraints = [
            models.UniqueConstraint(fields=["saga", "step", "kind"], name="sagas_step_once")
        ]

    def __str__(self) -> str:
        return f"{self.step} {self.kind} {self.status}"


class SagaAttempt(models.Model):
    """What happened to one attempt at a step. Rows are only ever added: an external attempt has one
    when it starts and one when it ends, a local one has only the latter."""

    saga = models.ForeignKey(
        Saga, on_delete=models.CASCADE, related_name="attempts", db_index=False
    )
    step = models.CharField(max_length=255)
    kind = models.CharField(max_length=1, choices=StepKind.choices)
    attempt = models.PositiveIntegerField()
    status = models.CharField(max_length=16, choices=StepStatus.choices)
    error = models.TextField(blank=True, default="")
    traceback = models.TextField(
        blank=True, default="", db_default="", help_text="of the last attempt, cut"
    )
    worker = models.CharField(max_length=64)
    started_at = models.DateTimeField()
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        db_table = "sagas_attempt"
        ordering = ("id",)
        constraints = [
            models.UniqueConstraint(
                fields=["saga", "step", "kind", "attempt", "status"], name="sagas_attempt_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.step} {self.kind} {self.attempt} {self.status}"


class Intervention(models.Model):
    """What a person did about a saga. Rows are only ever added."""

    saga = models.ForeignKey(Saga, on_delete=models.CASCADE, related_name="interventions")
    action = models.CharField(max_length=16)
    step = models.CharField(max_length=255, blank=True, default="")
    kind = models.CharField(max_length=1, blank=True, default="")
    who = models.CharField(max_length=255)
    why = models.TextField()
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        db_table = "sagas_intervention"
        ordering = ("at", "id")

    def __str__(self) -> str:
        return f"{self.action} by {self.who}"


class InboxMessage(models.Model):
    """A command that has been accepted. A redelivered one meets its row and changes nothing."""

    consumer = models.CharField(max_length=255)
    source = models.CharField(max_length=512)
    message_id = models.CharField(max_length=255)
    received_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        db_table = "sagas_inbox"
        constraints = [
            models.UniqueConstraint(
                fields=["consumer", "source", "message_id"], name="sagas_inbox_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.source} {self.message_id}"


class RefusedCommand(models.Model):
    """A record that could not become a saga, kept with the reason. One that is delivered again is
    the same at the same place; another one may be there too, where a topic was made again."""

    topic = models.CharField(max_length=249)
    partition = models.IntegerField()
    offset = models.BigIntegerField()
    content_hash = models.CharField(
        max_length=64,
        blank=True,
        default="",
        db_default="",
        editable=False,
        help_text="SHA-256 of key, value and headers",
    )
    key = models.BinaryField(null=True)
    value = models.BinaryField(null=True)
    headers = models.JSONField(help_text="names, and values as base64")
    reason = models.TextField()
    received_at = models.DateTimeField(default=timezone.now)

    class Meta:
        db_table = "sagas_refused_command"
        constraints = [
            models.UniqueConstraint(
                fields=["topic", "partition", "offset", "content_hash"], name="sagas_refused_each"
            )
        ]

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"
