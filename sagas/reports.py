"""Sagas as plain JSON values, for people and programs that look after them."""

from typing import Any

from sagas.models import Intervention, Saga, SagaStep


def listing(*, status: str | None, name: str | None, limit: int) -> list[dict[str, Any]]:
    """The newest sagas first."""
    sagas = Saga.objects.order_by("-created_at")
    if status:
        sagas = sagas.filter(status=status)
    if name:
        sagas = sagas.filter(name=name)
    return [summary(saga) for saga in sagas[:limit]]


def summary(saga: Saga) -> dict[str, Any]:
    return {
        "id": str(saga.id),
        "name": saga.name,
        "key": saga.key,
        "version": saga.version,
        "status": saga.status,
        "paused": saga.paused,
        "reason": saga.park_reason or saga.failure,
        "correlation_id": saga.correlation_id,
        "worker": saga.worker,
        "created_at": saga.created_at.isoformat(),
        "finished_at": saga.finished_at.isoformat() if saga.finished_at else None,
    }


def full(saga: Saga) -> dict[str, Any]:
    """The saga, its steps in the order in which they began, and what people did about it."""
    return {
        "saga": summary(saga),
        "steps": [_step(step) for step in saga.steps.order_by("started_at", "id")],
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


def _intervention(intervention: Intervention) -> dict[str, Any]:
    return {
        "at": intervention.at.isoformat(),
        "action": intervention.action,
        "step": intervention.step,
        "kind": intervention.kind,
        "who": intervention.who,
        "why": intervention.why,
    }
