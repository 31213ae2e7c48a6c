"""What sagaz is to undo beside what it has run itself: what the journal has of a step that this run
never comes to. A person may have resolved one that stands behind the step that fails."""

from collections.abc import Collection, Mapping

from sagaz import Saga as SagaClass

from sagas.journal.records import Claimed
from sagas.models import MAY_HAVE_HAPPENED, StepKind


def undo_all_that_is_known(saga: SagaClass, claimed: Claimed) -> None:
    """Have each step undone that may have had its effect, as the condition of the end wants it.

    To be called once sagaz runs: it forgets at its start. The order holds across a step that was
    never begun, so each compensation waits for those of all steps behind its own.
    """
    graph = saga._compensation_graph  # noqa: SLF001 - no public way
    known = {
        name
        for (name, kind), record in claimed.steps.items()
        if kind == StepKind.FORWARD and record.status in MAY_HAVE_HAPPENED
    }
    direct = {name: tuple(node.depends_on) for name, node in graph.nodes.items()}
    if any(not known.issuperset(direct.get(name, ())) for name in known):
        for name, node in graph.nodes.items():
            node.depends_on = sorted(_all_before(name, direct))
    for step in direct:
        if step in known:
            graph.mark_step_executed(step)


def _all_before(step: str, direct: Mapping[str, Collection[str]]) -> set[str]:
    """Name the steps that a step waits for, and those for which these wait."""
    found: set[str] = set()
    waiting = [*direct[step]]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting.extend(direct.get(each, ()))
    return found
