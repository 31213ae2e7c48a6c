"""Build and insert the rows of new sagas; no other module builds such rows."""

from collections.abc import Collection

from saga_runtime.correlation import Correlation
from sagas.definition.identity import saga_id
from sagas.definition.saga_types import SagaType
from sagas.journal import sql
from sagas.models import Saga


def new_saga(saga_type: SagaType, key: str, *, context: str, correlation: Correlation) -> Saga:
    """Build the row of a new saga; nothing is written.

    Args:
        saga_type: the registered class, in the version for the saga to run.
        key: the business key, a text of 1 to 255 characters without NUL. Name and key give the id.
        context: the first context, encoded by `journal.codec`.
        correlation: the correlation id and trace context of the command or request.

    Returns:
        An unsaved `Saga` in status pending, due at once; all moments go by the database's clock.
    """
    return Saga(
        id=saga_id(saga_type.name, key),
        name=saga_type.name,
        key=key,
        version=saga_type.version,
        definition_hash=saga_type.definition_hash,
        deadline=sql.moment_after(saga_type.deadline) if saga_type.deadline else None,
        input=context,
        next_run_at=sql.now(),  # claims compare it with the database's clock
        correlation_id=correlation.id,
        traceparent=correlation.traceparent,
    )


def insert_sagas(sagas: Collection[Saga]) -> None:
    """Insert rows of `new_saga()`; existing sagas stay unchanged."""
    # In the order of ids: two consumers that insert the same sagas must not deadlock.
    rows = sorted(sagas, key=lambda saga: saga.id)
    Saga.objects.bulk_create(rows, ignore_conflicts=True)


def unknown_sagas(sagas: Collection[Saga]) -> list[Saga]:
    """Return the rows of `new_saga()` whose sagas do not exist; of a saga's rows, the last."""
    rows = {saga.id: saga for saga in sagas}
    known = set(Saga.objects.filter(id__in=rows).values_list("id", flat=True))
    return [row for key, row in rows.items() if key not in known]
