"""Run sagas durably on sagaz: an inbox for commands, a journal of steps, an executor.

An app imports the names of `__all__`; the packages below are no interface for apps. A package
imports only packages further down in the list:

- `testing`, `management`: pytest fixtures, and the management commands.
- `worker`: many sagas in one process.
- `run`, `inbox`, `operations`: a single saga in a worker; arriving commands; people's changes.
- `journal`: all writing of the tables.
- `definition`: the declarations of apps.
"""

from typing import TYPE_CHECKING, Any

from sagas.definition.commit_alone import commit_alone
from sagas.definition.current_step import call_in_thread, forward_key, idempotency_key
from sagas.definition.hooks import Ending, SagaOutcome
from sagas.definition.identity import saga_id
from sagas.definition.registry import cancel_on, on_finish, on_park, on_start
from sagas.errors import (
    CannotRunHere,
    JournalIsReadOnly,
    NeedsAttention,
    NotJournalled,
    SagaDefinitionError,
    SagaFailed,
    SagaNotCompleted,
    SagaParked,
    SagasError,
    SagaUnfinished,
    StepRejected,
)

if TYPE_CHECKING:
    from sagas.operations.sagaz_storage import DjangoSagaStorage
    from sagas.operations.starting import start
    from sagas.worker.run_here import run_saga_sync

__all__ = [
    "CannotRunHere",
    "DjangoSagaStorage",
    "Ending",
    "JournalIsReadOnly",
    "NeedsAttention",
    "NotJournalled",
    "SagaDefinitionError",
    "SagaFailed",
    "SagaNotCompleted",
    "SagaOutcome",
    "SagaParked",
    "SagaUnfinished",
    "SagasError",
    "StepRejected",
    "call_in_thread",
    "cancel_on",
    "commit_alone",
    "forward_key",
    "idempotency_key",
    "on_finish",
    "on_park",
    "on_start",
    "run_saga_sync",
    "saga_id",
    "start",
]


def __getattr__(name: str) -> Any:
    """Import names late that need the models: Django imports this package before the models."""
    if name == "run_saga_sync":
        from sagas.worker.run_here import run_saga_sync

        return run_saga_sync
    if name == "start":
        from sagas.operations.starting import start

        return start
    if name == "DjangoSagaStorage":
        from sagas.operations.sagaz_storage import DjangoSagaStorage

        return DjangoSagaStorage
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
