"""Define the tables: the journal of every saga, and the inbox of accepted commands.

Only `sagas.journal` writes them.
"""

from datetime import datetime

from django.db import models
from django.db.models import Q
from django.utils import timezone


class SagaStatus(models.TextChoices):
    """Name the states of a saga; `sagas.journal.state_machine` has the transitions."""

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
    """Name the conditions by which sagas are looked up, each met by an index."""

    def claimable(self, now: datetime) -> "SagaQuerySet":
        """Select sagas that a worker may claim: new, due again, or with an expired lease."""
        return self.filter(status__in=ACTIVE, paused=False, next_run_at__lte=now)

    def having(self, status: str) -> "SagaQuerySet":
        """Select sagas in a status."""
        return self.filter(PAUSED_OR_NOT, status=status)

    def unfinished(self) -> "SagaQuerySet":
        """Select sagas that still run or are parked."""
        return self.filter(Q(PAUSED_OR_NOT, status__in=ACTIVE) | Q(status=SagaStatus.PARKED))


class Saga(models.Model):
    """Keep a saga. The id is derived from name and business key, so each saga exists only once.

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
            # Due sagas and lost leases, in the order of claims. Ended sagas leave the index, so it
            # stays as small as the work.
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
    """Tell a step from its compensation."""

    FORWARD = "F"
    COMPENSATION = "C"


class StepStatus(models.TextChoices):
    """Name the states of a step, and of an attempt at a step."""

    STARTED = "started"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


MAY_HAVE_HAPPENED = (StepStatus.STARTED, StepStatus.DONE, StepStatus.UNKNOWN)


class SagaStep(models.Model):
    """Keep a step, forward or compensating, with its last attempt.

    A step that succeeds at its first attempt costs this row only. The attempts before the last are
    `SagaAttempt`s.
    """

    # The unique constraint begins with the saga: a further index would only cost each insert.
    saga = models.ForeignKey(Saga, on_delete=models.CASCADE, related_name="steps", db_index=False)
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
    traceback = models.TextField(
        blank=True, default="", db_default="", help_text="of the error, cut"
    )
    worker = models.CharField(
        max_length=64, blank=True, default="", db_default="", help_text="of the last attempt"
    )
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
    """Keep an attempt at a step that another attempt, or a person's word, came after.

    Rows are only ever added, when the step's row is about to change. An attempt whose worker was
    lost stays `started`. `at` is the attempt's end, or the start where the end is unknown.
    """

    # Without an index of its own, as in SagaStep.
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
    """Keep an intervention: what a person did about a saga. Rows are only ever added."""

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
    """Remember an accepted command: a redelivered one meets its row and changes nothing."""

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
    """Keep a record that could not become a command, with the reason.

    A redelivered record has the same place and content. Where a topic was made again, another
    record may have the same place.
    """

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
