"""Describe sagas as plain JSON values, for operators and their programs."""

from datetime import datetime
from typing import Any

from saga_runtime.text import storable
from sagas.models import (
    Intervention,
    RefusedCommand,
    Saga,
    SagaAttempt,
    SagaStatus,
    SagaStep,
    StepStatus,
)


def list_sagas(*, status: str | None, name: str | None, limit: int) -> list[dict[str, Any]]:
    """Summarize the newest sagas, the newest first.

    Args:
        status: only sagas in this status.
        name: only sagas of this name.
        limit: how many sagas at most.
    """
    sagas = Saga.objects.order_by("-created_at")
    if status:
        sagas = sagas.having(status)
    if name:
        sagas = sagas.filter(name=name)
    return [summarize_saga(saga) for saga in sagas[:limit]]


def summarize_saga(saga: Saga) -> dict[str, Any]:
    """Describe a saga by the columns of its row; moments are texts in ISO 8601."""
    return {
        "id": str(saga.id),
        "name": saga.name,
        "key": saga.key,
        "version": saga.version,
        "status": saga.status,
        "paused": saga.paused,
        "reason": saga.park_reason or saga.failure,
        "cancel_reason": saga.cancel_reason,
        "past_pivot": saga.past_pivot,
        "takeovers": saga.takeovers,
        "next_run_at": saga.next_run_at.isoformat() if saga.status == SagaStatus.WAITING else None,
        "deadline": saga.deadline.isoformat() if saga.deadline else None,
        "correlation_id": saga.correlation_id,
        "worker": saga.worker,
        "created_at": saga.created_at.isoformat(),
        "finished_at": saga.finished_at.isoformat() if saga.finished_at else None,
    }


def report_saga(saga: Saga) -> dict[str, Any]:
    """Describe a saga in full: its row, steps, attempts and interventions.

    Returns:
        `saga`: the summary. `steps`: in the order in which they began. `timeline`: each attempt at
        a step. `interventions`: the changes made by people. Durations are in seconds.
    """
    return {
        "saga": summarize_saga(saga),
        "steps": [_step(step) for step in saga.steps.order_by("started_at", "id")],
        "timeline": _timeline(saga),
        "interventions": [_intervention(each) for each in saga.interventions.all()],
    }


def _step(step: SagaStep) -> dict[str, Any]:
    seconds = None
    if step.finished_at is not None:
        seconds = round((step.finished_at - step.started_at).total_seconds(), 3)
    return {
        "step": step.step,
        "kind": step.get_kind_display().lower(),
        "status": step.status,
        "attempt": step.attempt,
        "key": step.key,
        "result": step.result,
        "error": step.error,
        "resolved_by": step.resolved_by,
        "started_at": step.started_at.isoformat(),
        "seconds": seconds,
    }


def _timeline(saga: Saga) -> list[dict[str, Any]]:
    """Describe each attempt once, as it ended; as `started` where the end is unknown."""
    # A person's word is no attempt.
    steps = saga.steps.filter(attempt__gt=0, resolved_by="")
    attempts: list[SagaAttempt | SagaStep] = [*steps]
    # Last: workers of the first release keep each attempt here, and the step's row has another's
    # worker then.
    attempts += saga.attempts.all()
    last = {(a.step, a.kind, a.attempt): a for a in attempts}
    return [_attempt(each) for each in sorted(last.values(), key=_began)]


def _began(attempt: SagaAttempt | SagaStep) -> tuple[datetime, int]:
    return attempt.started_at, attempt.attempt


def _attempt(attempt: SagaAttempt | SagaStep) -> dict[str, Any]:
    ended_at = attempt.finished_at if isinstance(attempt, SagaStep) else attempt.at
    seconds = None
    if attempt.status != StepStatus.STARTED and ended_at is not None:
        seconds = round((ended_at - attempt.started_at).total_seconds(), 3)
    return {
        "step": attempt.step,
        "kind": attempt.get_kind_display().lower(),
        "attempt": attempt.attempt,
        "status": attempt.status,
        "error": attempt.error,
        "traceback": attempt.traceback,
        "worker": attempt.worker,
        "started_at": attempt.started_at.isoformat(),
        "seconds": seconds,
    }


def list_refused_commands(*, limit: int) -> list[dict[str, Any]]:
    """Describe the newest records that could not become commands, with the reasons."""
    return [
        {
            "topic": row.topic,
            "partition": row.partition,
            "offset": row.offset,
            "key": _text(row.key),
            "value": _text(row.value),
            "headers": row.headers,
            "reason": row.reason,
            "received_at": row.received_at.isoformat(),
        }
        for row in RefusedCommand.objects.order_by("-id")[:limit]
    ]


def _text(value: bytes | memoryview | None) -> str | None:
    """Decode bytes for a person; invalid bytes are escaped."""
    return None if value is None else storable(bytes(value).decode(errors="backslashreplace"))


def _intervention(intervention: Intervention) -> dict[str, Any]:
    return {
        "at": intervention.at.isoformat(),
        "action": intervention.action,
        "step": intervention.step,
        "kind": intervention.kind,
        "who": intervention.who,
        "why": intervention.why,
    }
