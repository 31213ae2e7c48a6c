"""Name the instants at which a worker may die; tests kill workers there."""

from collections.abc import Callable
from enum import StrEnum


class Point(StrEnum):
    """Name an instant; the name, or the comment beside, says what is committed by then."""

    CLAIMED = "claimed"
    BEFORE_INBOX_COMMIT = "before_inbox_commit"
    AFTER_INBOX_COMMIT = "after_inbox_commit"  # the broker's offset is not yet committed
    INSIDE_LOCAL_STEP = "inside_local_step"  # its writes are made; nothing is committed
    INSIDE_CHAIN = "inside_chain"  # between two local steps; nothing is committed
    STARTED = "started"  # the journal has it; the call is not yet made
    CALLED = "called"  # the call is made; the journal does not have its answer
    STEP_DONE = "step_done"
    ATTEMPT_FAILED = "attempt_failed"  # another one follows
    FAILURE_DECIDED = "failure_decided"  # nothing is undone yet
    BEFORE_TERMINAL_COMMIT = "before_terminal_commit"
    AFTER_TERMINAL_COMMIT = "after_terminal_commit"


Observer = Callable[[Point, str], None]

_observers: list[Observer] = []


def reach(point: Point, where: str = "") -> None:
    """Tell the observers that the worker is at a point; without observers nothing happens.

    Args:
        point: the point.
        where: the step and its kind, as `charge_payment:F`; empty where the point has no step.
    """
    for observer in _observers:
        observer(point, where)


def observe(observer: Observer) -> Callable[[], None]:
    """Call a function at each point; return a function to end the calls."""
    _observers.append(observer)
    return lambda: _observers.remove(observer)
