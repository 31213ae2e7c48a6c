"""Build and insert the rows of new sagas; no other module builds such rows."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.db import connection
from django.db.models.constants import OnConflict
from django.db.models.sql import InsertQuery

from saga_runtime.correlation import Correlation
from sagas.definition.identity import saga_id
from sagas.definition.saga_types import SagaType
from sagas.journal import sql
from sagas.journal.loading import load_claimed, returned_columns
from sagas.journal.records import Claimed
from sagas.journal.sql import Rows
from sagas.models import Saga, SagaStatus


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


@dataclass(frozen=True, slots=True)
class ClaimNew:
    """Say who claims new sagas with their insert.

    Attributes:
        worker: the claiming worker's name.
        lease: how long each saga is the worker's, unless the lease is renewed.
        most: how many sagas to claim; the others wait, as without a claim.
        but: names of sagas to leave out: their number is limited among all workers.
    """

    worker: str
    lease: timedelta
    most: int
    but: Collection[str] = ()


def insert_sagas(sagas: Collection[Saga], *, claim: ClaimNew | None = None) -> list[Claimed]:
    """Insert rows of `new_saga()`; existing sagas stay unchanged.

    Returns:
        The sagas that were claimed, each by the caller's transaction.
    """
    began = time.monotonic()
    taken: list[Saga] = []
    if claim is not None:
        taken = [saga for saga in sagas if saga.name not in claim.but][: claim.most]
        for saga in taken:
            saga.status, saga.epoch, saga.worker = SagaStatus.RUNNING, 1, claim.worker
            saga.next_run_at = sql.moment_after(claim.lease)
    # In the order of ids: two consumers that insert the same sagas must not deadlock.
    inserted = _insert(sorted(sagas, key=lambda saga: saga.id))
    if claim is None:
        return []
    ours = {saga.id for saga in taken}
    claimed = [row for row in inserted if sql.uuid_of(row[0]) in ours]
    return load_claimed(claimed, worker=claim.worker, began=began)


def _insert(rows: Sequence[Saga]) -> Rows:
    """Insert rows; return the `returned_columns()`, id first, of those that were not there."""
    # As `bulk_create()` does it, which does not tell: a saga that another consumer inserts
    # meanwhile may be claimed by this very worker before this statement goes on.
    fields = Saga._meta.concrete_fields  # noqa: SLF001
    size = max(1, connection.ops.bulk_batch_size(fields, rows))
    returned = ", ".join(returned_columns())
    inserted: Rows = []
    for first in range(0, len(rows), size):
        query = InsertQuery(Saga, on_conflict=OnConflict.IGNORE)
        query.insert_values(fields, [*rows[first : first + size]])
        for text, params in query.get_compiler(connection=connection).as_sql():
            inserted += sql.run_planned(f"{text} RETURNING {returned}", params)
    return inserted


def unknown_sagas(sagas: Collection[Saga]) -> list[Saga]:
    """Return the rows of `new_saga()` whose sagas do not exist; of a saga's rows, the last."""
    rows = {saga.id: saga for saga in sagas}
    if not rows:
        return []
    among, keys = sql.among(rows)
    found = sql.run(f"SELECT id FROM sagas_saga WHERE {among}", keys)  # noqa: S608 - constants
    known = {sql.uuid_of(key) for (key,) in found}
    return [row for key, row in rows.items() if key not in known]
