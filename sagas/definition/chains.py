"""Find the steps that can share a transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sagas.definition.steps import Step

LONGEST_CHAIN = 8
"""Steps: more of them would hold their rows' locks for long."""


@dataclass(frozen=True, slots=True)
class Followers:
    """Hold what can follow a local step in its transaction.

    Attributes:
        steps: the local steps that follow directly.
        call: the external step behind them, whose start can be written along; None where a pivot
            or another kind of step follows, or none.
    """

    steps: tuple[Step, ...]
    call: Step | None


def chains(levels: Iterable[Sequence[Step]]) -> dict[str, Followers]:
    """Find, for each local step, what follows it directly.

    A chain goes on as long as sagaz runs a single step at a time, and stops before an external
    step, before one that is marked with `commit_alone`, and at LONGEST_CHAIN.

    Args:
        levels: the saga's steps in the order of sagaz, which runs the steps of a level side by
            side, and no step before all of the level before are done.

    Returns:
        The followers, by the name of the step at the head. A step that cannot be part of a chain is
        left out; one that stands alone has no follower, but the saga's end may join it.
    """
    found: dict[str, Followers] = {}
    behind: tuple[Step, ...] = ()
    call: Step | None = None
    for level in reversed([*levels]):
        if len(level) != 1 or not _may_share(level[0]):
            behind, call = (), None
            continue
        step = level[0]
        if step.is_external:
            # Not a pivot: started and not called, it would leave nothing to undo the saga by.
            behind, call = (), None if step.is_pivot else step
            continue
        if behind and (step.timeout is None) != (behind[0].timeout is None):
            behind, call = (), None  # the server's limit for one of them would hold for the other
        is_whole = len(behind) < LONGEST_CHAIN
        found[step.name] = Followers(behind[: LONGEST_CHAIN - 1], call if is_whole else None)
        behind = (step, *behind)
    return found


def answers_that_wait(levels: Sequence[Sequence[Step]]) -> set[str]:
    """Find the external steps whose answers can be written with the local step that follows.

    Args:
        levels: the saga's steps, as for `chains`.

    Returns:
        The names of the external steps.
    """
    return {
        step.name
        for (step, *beside), (follower, *others) in pairwise(levels)
        if step.is_external and _may_share(step) and not beside
        if not follower.is_external and _may_share(follower) and not others
    }


def _may_share(step: Step) -> bool:
    # A hook may change the context between two steps, which a chain would not see.
    return not (step.commits_alone or step.has_hooks)
