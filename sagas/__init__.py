"""Runs sagas durably on sagaz: an inbox for commands, a journal of steps, an executor."""

from sagas.errors import SagaDefinitionError, SagasError, StepRejected
from sagas.hooks import Ending, SagaOutcome, on_finish, on_park, on_start
from sagas.identity import saga_id
from sagas.scope import call_in_thread, forward_key, idempotency_key

__all__ = [
    "Ending",
    "SagaDefinitionError",
    "SagaOutcome",
    "SagasError",
    "StepRejected",
    "call_in_thread",
    "forward_key",
    "idempotency_key",
    "on_finish",
    "on_park",
    "on_start",
    "saga_id",
]
