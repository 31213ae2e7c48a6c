"""The instants at which a worker may die. Tests kill it there; otherwise nothing happens."""

from collections.abc import Callable
from enum import StrEnum


class Point(StrEnum):
    """Where the worker is. What is committed then is in the name, or stands beside it."""

    CLAIMED = "claimed"
    BEFORE_INBOX_COMMIT = "before_inbox_commit"
    AFTER_INBOX_COMMIT = "after_inbox_commit"  # the broker's offset is not yet committed
    INSIDE_LOCAL_STEP = "inside_local_step"  # its writes are made; nothing is committed
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
    """The worker is at this point. `where`: the step and its kind, as `charge_payment:F`."""
    for observer in _observers:
        observer(point, where)


def observe(observer: Observer) -> Callable[[], None]:
    """Call this function at each point; returns what ends that."""
    _observers.append(observer)
    return lambda: _observers.remove(observer)
