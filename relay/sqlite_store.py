"""Read and delete the outbox on SQLite, by the ORM: a single relay has every lane."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC

from django.db.models import QuerySet

from outbox.models import LANES, OutboxMessage
from relay.parking_store import ParkingStore
from relay.store import Row


class SQLiteStore(ParkingStore):
    """Keep to `Store` by plain queries; no lane is ever lost, so epochs say nothing."""

    deletes_beside_reads = False

    def head(
        self,
        lanes: Sequence[int],
        *,
        epochs: Mapping[int, int],  # noqa: ARG002 - see above
        in_flight: Collection[Row],
        limit: int,
        lane_limit: int,  # noqa: ARG002 - rows come by id, from all lanes at a time
    ) -> "PendingQuery":
        """Ask for the first rows of the lanes; see `Store.head()`."""
        messages = OutboxMessage.objects.order_by("id")
        if len(lanes) < LANES:
            messages = messages.filter(lane__in=lanes)
        if in_flight:
            messages = messages.exclude(id__in=[row.id for row in in_flight])
        return PendingQuery(messages[:limit])

    def first_of(
        self,
        ids: Collection[int],
        epochs: Mapping[int, int],  # noqa: ARG002 - see above
    ) -> Row | None:
        """Return the first of the rows still in the outbox."""
        message = OutboxMessage.objects.filter(id__in=ids).order_by("id").first()
        return None if message is None else _row(message)

    def try_delete(self) -> None:
        """Do nothing: SQLite knows no rights."""

    def delete(
        self,
        rows: Collection[Row],
        epochs: Mapping[int, int],  # noqa: ARG002 - see above
    ) -> None:
        """Delete acknowledged rows."""
        OutboxMessage.objects.filter(id__in=[row.id for row in rows]).delete()

    def _lock_lanes(
        self,
        lanes: Collection[int],
        epochs: Mapping[int, int],  # noqa: ARG002 - see above
    ) -> set[int]:
        return set(lanes)


class PendingQuery:
    """Hold a query that is run only when the result is wanted."""

    def __init__(self, messages: QuerySet[OutboxMessage]) -> None:
        self._messages = messages

    def result(self) -> list[Row]:
        """Read and return the rows."""
        return [*map(_row, self._messages)]


def _row(message: OutboxMessage) -> Row:
    return Row(
        id=message.id,
        lane=message.lane,
        segment=0,
        topic=message.topic,
        key=message.key,
        payload=bytes(message.payload),
        headers=json.dumps(message.headers) if message.headers else "{}",
        message_id=str(message.message_id).encode(),
        type=message.type.encode(),
        correlation_id=message.correlation_id.encode(),
        traceparent=message.traceparent.encode(),
        created_at=message.created_at.astimezone(UTC).replace(tzinfo=None).isoformat(" ").encode(),
    )
