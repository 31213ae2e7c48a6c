"""Define a relay's access to the outbox's tables, on either database.

A read starts at a lane's first row each time: a cursor would step over late commits.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol


class Row(NamedTuple):
    """Hold a message of the outbox; future headers are bytes already.

    Attributes:
        id: rises in the order of publishing within a key.
        segment: the partition of the row; 0 on SQLite.
        headers: the application's own, a JSON object.
        created_at: ISO 8601 in UTC without the zone, with a space in the place of the T.
    """

    id: int
    lane: int
    segment: int
    topic: str
    key: str
    payload: bytes
    headers: str
    message_id: bytes
    type: bytes
    correlation_id: bytes
    traceparent: bytes
    created_at: bytes


row_of: Callable[[Iterable[Any]], Row] = partial(tuple.__new__, Row)
"""Make a row of fields in the order of `Row._fields`; three times as fast as `Row._make`."""


class Pending(Protocol):
    """Hold a read without an answer yet."""

    def result(self) -> list[Row]:
        """Wait for the answer and return the rows.

        Must be called, and once: on PostgreSQL the connection is for nothing else until then.

        Raises:
            django.db.Error: the read has failed.
        """


class Store(Protocol):
    """Read, delete and park rows of the outbox, for a relay.

    Lanes come with the epochs of the relay's claims. On PostgreSQL each method checks the leases
    again and leaves alone the lanes that are lost: a relay that has slept past a lease reads
    nothing behind a message that the lane's next holder has parked.
    """

    @property
    def owner(self) -> str:
        """Return the relay's name, as in the leases."""

    @property
    def deletes_beside_reads(self) -> bool:
        """Tell whether a thread may delete while the relay reads."""

    def head(
        self,
        lanes: Sequence[int],
        *,
        epochs: Mapping[int, int],
        in_flight: Collection[Row],
        limit: int,
        lane_limit: int,
    ) -> Pending:
        """Ask for the first rows of the lanes, each lane's by id.

        Args:
            lanes: in the order of serving.
            epochs: of each lane held by the relay.
            in_flight: rows to leave out.
            limit: the number of rows at most.
            lane_limit: the number of rows of a lane at most.

        Returns:
            The pending read; PostgreSQL works meanwhile.
        """

    def first_of(self, ids: Collection[int], epochs: Mapping[int, int]) -> Row | None:
        """Return the first of the rows still in the outbox."""

    def any_left(self) -> bool:
        """Tell whether the outbox has any row."""

    def try_delete(self) -> None:
        """Delete no row, in the way of every delete.

        Raises:
            django.db.Error: every delete would raise the same, such as for want of a right.
        """

    def delete(self, rows: Collection[Row], epochs: Mapping[int, int]) -> None:
        """Delete acknowledged rows."""

    def parked_keys(self, lanes: Collection[int]) -> set[str]:
        """Return the keys with a parked message in the lanes."""

    def still_parked(self, keys: Collection[str]) -> set[str]:
        """Return the given keys that have a parked message now."""

    def park(
        self, keys: Mapping[str, int], *, reasons: Mapping[int, str], epochs: Mapping[int, int]
    ) -> Counter[str]:
        """Move every row of the keys from the outbox to the parked messages, in order.

        A key is left alone while locked elsewhere, and where there is neither a refused message nor
        a parked message to wait behind.

        Args:
            keys: each with the key's lane.
            reasons: by the row's id, why the broker has refused a message.
            epochs: of each lane held by the relay.

        Returns:
            The number of messages parked, by key.
        """
