"""Kill a worker at each point of a saga in turn, and compare the effects."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Unpack
from uuid import UUID

from sagas.crash_points import Point
from sagas.testing.worker import Moment, Options
from sagas.testing.workers import Workers

Begin = Callable[[int], UUID]
Effects = Callable[[int], Any]

WHOLE_SAGA = "(saga)"
"""The row of the matrix for points that belong to no step."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Keep the result of one crash.

    Attributes:
        moment: when the worker was killed.
        saga_id: the saga that it ran.
        differs: how the effects differ from the undisturbed saga's; empty where they are equal.
    """

    moment: Moment
    saga_id: UUID
    differs: str = ""


@dataclass(frozen=True, slots=True)
class CrashMatrix:
    """Keep the results of a walk; as text, a table.

    The table has a row for each step and direction, and a column for each point. `ok 3`: the point
    was reached three times, and a worker was killed each time.
    """

    cells: tuple[Cell, ...]

    @property
    def differences(self) -> list[str]:
        """List the crashes with other effects than expected."""
        return [
            f"{cell.moment}, saga {cell.saga_id}: {cell.differs}"
            for cell in self.cells
            if cell.differs
        ]

    def __str__(self) -> str:
        points = [p for p in Point if any(cell.moment.point is p for cell in self.cells)]
        rows = list(dict.fromkeys(cell.moment.where for cell in self.cells))
        table = [["", *(str(point) for point in points)]]
        table += [[where or WHOLE_SAGA, *(self._at(p, where) for p in points)] for where in rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return "\n".join(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        )

    def _at(self, point: Point, where: str) -> str:
        here = [c for c in self.cells if (c.moment.point, c.moment.where) == (point, where)]
        if not here:
            return "-"
        word = "differs" if any(cell.differs for cell in here) else "ok"
        return f"{word} {len(here)}" if len(here) > 1 else word


def walk(
    workers: Workers,
    *,
    begin: Begin,
    effects: Effects,
    times: int = 3,
    **options: Unpack[Options],
) -> CrashMatrix:
    """Kill a worker at each moment of a saga, and compare the effects with an undisturbed run.

    The first saga runs undisturbed, and shows the moments. For each moment a new saga is run until
    its worker is killed there; at the end a second worker finishes all sagas. There must be no
    other sagas to run.

    Args:
        workers: starts the processes.
        begin: starts saga number n, under a business key of its own, and returns the saga's id.
        effects: returns the effects of saga number n, as a value without ids and times, so that
            equal effects are equal values.
        times: how often at most a worker is killed at the same point of the same step.
        **options: how the workers shall be.

    Returns:
        The matrix of all crashes.

    Raises:
        AssertionError: a saga's ending or effects differ; the text has matrix and differences.
    """
    calm = begin(0)
    moments = [m for m in workers.run(calm, **options).reached if m.nth <= times]
    crashed = [_begin_and_crash(workers, begin, n, m, options) for n, m in enumerate(moments, 1)]
    resume(crashed)
    workers.run(*crashed, **options)
    expected = _with_ending(calm, effects(0))
    matrix = CrashMatrix(
        tuple(
            Cell(moment, saga, _difference(expected, _with_ending(saga, effects(n))))
            for n, (moment, saga) in enumerate(zip(moments, crashed, strict=True), 1)
        )
    )
    if matrix.differences:
        raise AssertionError("\n".join([f"\n{matrix}\n", *matrix.differences]))
    return matrix


def _begin_and_crash(
    workers: Workers, begin: Begin, n: int, moment: Moment, options: Options
) -> UUID:
    """Start a saga, kill its worker, and pause the saga: the next victims must not get it."""
    saga = begin(n)
    workers.crash(moment.point, moment.where, nth=moment.nth, **options)
    pause([saga])
    return saga


def pause(sagas: Sequence[UUID]) -> None:
    """Keep sagas from every worker, until `resume()`."""
    _set_paused(sagas, paused=True)


def resume(sagas: Sequence[UUID]) -> None:
    """Let paused sagas be claimed again."""
    _set_paused(sagas, paused=False)


def _set_paused(sagas: Sequence[UUID], *, paused: bool) -> None:
    from sagas.journal.manual_changes import set_paused

    set_paused(sagas, paused=paused)


def _with_ending(saga: UUID, effects: Any) -> dict[str, Any]:
    from sagas.models import Saga

    ending = {"saga": Saga.objects.get(id=saga).status}
    return {**effects, **ending} if isinstance(effects, dict) else {"effects": effects, **ending}


def _difference(expected: dict[str, Any], found: dict[str, Any]) -> str:
    missing = object()
    names = [n for n in {**expected, **found} if expected.get(n, missing) != found.get(n, missing)]
    return "; ".join(f"{n} is {found.get(n)!r}, expected {expected.get(n)!r}" for n in names)
