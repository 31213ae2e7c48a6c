"""Tell sagaz which steps to undo beside those of the present run.

The journal may have a step that the run never comes to: a person may have resolved a step behind
the failing step.
"""

from collections.abc import Collection, Mapping

from sagaz import Saga as SagaClass

from sagas.journal.records import Claimed
from sagas.models import MAY_HAVE_HAPPENED, StepKind


def undo_all_that_is_known(saga: SagaClass, claimed: Claimed) -> None:
    """Have each step in doubt or done undone, as the condition of the end demands.

    To be called once sagaz runs: sagaz forgets at the start. The order holds across a step
    without a begin, so each compensation waits for the compensations of all later steps.
    """
    graph = saga._compensation_graph  # noqa: SLF001 - no public way
    known = {
        name
        for (name, kind), record in claimed.steps.items()
        if kind == StepKind.FORWARD and record.status in MAY_HAVE_HAPPENED
    }
    direct = {name: tuple(node.depends_on) for name, node in graph.nodes.items()}
    # Only where a step is missing in between: sagaz's own order is the faster one otherwise.
    if any(not known.issuperset(direct.get(name, ())) for name in known):
        for name, node in graph.nodes.items():
            node.depends_on = sorted(_all_before(name, direct))
    for step in direct:
        if step in known:
            graph.mark_step_executed(step)


def _all_before(step: str, direct: Mapping[str, Collection[str]]) -> set[str]:
    """Name the direct and indirect prerequisites of a step."""
    found: set[str] = set()
    waiting = [*direct[step]]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting.extend(direct.get(each, ()))
    return found
