"""Start new sagas in this process's worker, which claims them as they are inserted."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from sagas.journal.new_sagas import ClaimNew
from sagas.journal.records import Claimed


class Worker(Protocol):
    """Run sagas in this process."""

    def reserve(self, most: int) -> ClaimNew | None:
        """Reserve places for up to so many sagas; None where there is none.

        Each reservation is followed by a single `hand_over()`.
        """

    def hand_over(self, claimed: Sequence[Claimed], *, reserved: int, waiting: int) -> None:
        """Start sagas that are committed, and free the other places.

        Args:
            claimed: under the reservation.
            reserved: how many places were reserved.
            waiting: how many further sagas wait for a claim, or for a cancel.
        """


class Reserved:
    """Hold the places for the new sagas of a batch.

    Attributes:
        claim: how to claim the sagas; None where no place is free.
        claimed: the sagas that were inserted, and claimed.
        waiting: how many further sagas give a worker something to do.
    """

    def __init__(self, claim: ClaimNew | None) -> None:
        self.claim = claim
        self.claimed: Sequence[Claimed] = ()
        self.waiting = 0


@contextmanager
def reserved_places(worker: Worker | None, most: int) -> Iterator[Reserved]:
    """Reserve places, and hand over what has been committed when the block ends.

    A block that raises hands nothing over: what it has committed nevertheless waits until the
    lease has run out.
    """
    reserved = Reserved(worker.reserve(most) if worker and most else None)
    is_committed = False
    try:
        yield reserved
        is_committed = True
    finally:
        if worker is not None:
            worker.hand_over(
                reserved.claimed if is_committed else (),
                reserved=reserved.claim.most if reserved.claim else 0,
                waiting=reserved.waiting if is_committed else 0,
            )
