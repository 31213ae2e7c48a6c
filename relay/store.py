"""The outbox's tables as a relay uses them, whichever database has the tables.

A read starts at a lane's first row each time: a cursor would step over rows that commit late.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol


class Row(NamedTuple):
    """Hold a message of the outbox; fields that become headers are bytes already.

    Attributes:
        id: rises in the order in which the messages of a key are published.
        segment: the partition that has the row; 0 on SQLite.
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
    """A read that has been asked for and is not yet answered."""

    def result(self) -> list[Row]:
        """Wait for the answer and return its rows.

        Must be called, and once: on PostgreSQL the connection is for nothing else until then.

        Raises:
            django.db.Error: the read has failed.
        """


class Store(Protocol):
    """Read, delete and park rows of the outbox, for one relay.

    Lanes come with the epochs under which the relay leases them. On PostgreSQL each method looks
    again whether that is still so, and leaves alone the lanes of which it is not: a relay that has
    slept past its lease reads nothing behind a message that the lane's next holder has parked.
    """

    @property
    def owner(self) -> str:
        """Return the relay's name, which its leases carry."""

    @property
    def deletes_beside_reads(self) -> bool:
        """Tell whether one thread may delete while another one reads."""

    def head(
        self,
        lanes: Sequence[int],
        *,
        epochs: Mapping[int, int],
        in_flight: Collection[Row],
        limit: int,
        lane_limit: int,
    ) -> Pending:
        """Ask for the first rows of these lanes, each lane's by id.

        Args:
            lanes: in the order in which they are served.
            epochs: of each lane that the relay holds.
            in_flight: rows that are left out.
            limit: the number of rows at most.
            lane_limit: the number of rows of one lane at most.

        Returns:
            The read; PostgreSQL works on it meanwhile.
        """

    def first_of(self, ids: Collection[int], epochs: Mapping[int, int]) -> Row | None:
        """Return the first of these rows that is still in the outbox."""

    def any_left(self) -> bool:
        """Tell whether the outbox has any row."""

    def try_delete(self) -> None:
        """Delete no row, in the way in which rows are deleted.

        Raises:
            django.db.Error: every delete would raise the same, such as for want of a right.
        """

    def delete(self, rows: Collection[Row], epochs: Mapping[int, int]) -> None:
        """Delete rows that the broker has acknowledged."""

    def parked_keys(self, lanes: Collection[int]) -> set[str]:
        """Return the keys in these lanes that have a parked message."""

    def still_parked(self, keys: Collection[str]) -> set[str]:
        """Return the keys, of these, that have a parked message now."""

    def park(
        self, keys: Mapping[str, int], *, reasons: Mapping[int, str], epochs: Mapping[int, int]
    ) -> Counter[str]:
        """Move every row of these keys from the outbox to the parked messages, in order.

        A key is left alone where somebody else holds its lock, and where it has neither a refused
        message nor a parked message to wait behind.

        Args:
            keys: each with its lane.
            reasons: by the row's id, why the broker has refused a message.
            epochs: of each lane that the relay holds.

        Returns:
            The number of messages parked, by key.
        """
