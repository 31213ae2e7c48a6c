"""Find the local steps that can commit together."""

from collections.abc import Iterable, Sequence

from sagas.definition.steps import Step

LONGEST_CHAIN = 8
"""Steps: more of them would hold their rows' locks for long."""


def chains(levels: Iterable[Sequence[Step]]) -> dict[str, tuple[Step, ...]]:
    """Find, for each local step, the local steps that follow it directly.

    A chain goes on as long as sagaz runs a single step at a time, and stops before an external
    step, before one that is marked with `commit_alone`, and at LONGEST_CHAIN.

    Args:
        levels: the saga's steps in the order of sagaz, which runs the steps of a level side by
            side, and no step before all of the level before are done.

    Returns:
        The followers, by the name of the step at the head. A step that cannot be part of a chain is
        left out; one that stands alone has no follower, but the saga's end may join it.
    """
    found: dict[str, tuple[Step, ...]] = {}
    behind: tuple[Step, ...] = ()
    for level in reversed([*levels]):
        if len(level) != 1 or not _may_share(level[0]):
            behind = ()
            continue
        step = level[0]
        if behind and (step.timeout is None) != (behind[0].timeout is None):
            behind = ()  # the server's limit for one of them would hold for the other
        found[step.name] = behind
        behind = (step, *behind)[: LONGEST_CHAIN - 1]
    return found


def _may_share(step: Step) -> bool:
    # A hook may change the context between two steps, which a chain would not see.
    return not (step.is_external or step.commits_alone or step.has_hooks)
