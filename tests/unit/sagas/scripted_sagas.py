"""Sagas that a test puts together of steps, and a script of what happens within them."""

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sagaz import Saga as SagaClass
from sagaz import action, compensate

from sagas.journal import claims
from sagas.journal.records import Claimed
from sagas.models import SagaStep
from tests.unit.sagas.saga_running import Context

Act = Callable[[Context], Any]


@dataclass(frozen=True, slots=True)
class Part:
    """A step; its compensation is of the same kind, and `un` stands before its name."""

    name: str
    after: tuple[str, ...] = ()
    external: bool = False
    pivot: bool = False
    max_retries: int = 2
    timeout: float | None = None
    undo_retries: int = 2


class Script:
    """What the steps do, by their names; `calls` is what was run, in this order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.acts: dict[str, Act] = {}

    def play(self, name: str, context: Context) -> Any:
        self.calls.append(name)
        return self.acts[name](context) if name in self.acts else None

    async def play_async(self, name: str, context: Context) -> Any:
        result = self.play(name, context)
        return await result if inspect.isawaitable(result) else result

    def saga(self, saga_name: str, *parts: Part, **attributes: Any) -> type[SagaClass]:
        """A saga of these steps."""
        members: dict[str, Any] = {"saga_name": saga_name, **attributes}
        for part in parts:
            limits: dict[str, Any] = (
                {} if part.timeout is None else {"timeout_seconds": part.timeout}
            )
            members[part.name] = action(
                part.name,
                depends_on=[*part.after],
                max_retries=part.max_retries,
                pivot=part.pivot,
                **limits,
            )(self._function(part.name, external=part.external))
            members[f"un{part.name}"] = compensate(part.name, max_retries=part.undo_retries)(
                self._function(f"un{part.name}", external=part.external)
            )
        return type(saga_name, (SagaClass,), members)

    def _function(self, name: str, *, external: bool) -> Callable[..., Any]:
        async def outside(_saga: SagaClass, context: Context) -> Any:
            return await self.play_async(name, context)

        def inside(_saga: SagaClass, context: Context) -> Any:
            return self.play(name, context)

        return outside if external else inside


def chain(*parts: Part) -> list[Part]:
    """The steps one after the other."""
    names = [part.name for part in parts]
    return [
        Part(
            part.name,
            after=tuple(names[:n][-1:]),
            external=part.external,
            pivot=part.pivot,
            max_retries=part.max_retries,
            timeout=part.timeout,
            undo_retries=part.undo_retries,
        )
        for n, part in enumerate(parts)
    ]


def raising(error: BaseException) -> Act:
    def act(_: Context) -> Any:
        raise error

    return act


def failing(*errors: BaseException, then: Any = None) -> Act:
    """Raises each in turn, then returns."""
    left = list(errors)

    def act(_: Context) -> Any:
        if left:
            raise left.pop(0)
        return then

    return act


def forever() -> Act:
    """An external step that gets no answer."""

    async def act(_: Context) -> None:
        await asyncio.Event().wait()

    return act


def failures_of(saga: object) -> dict[str, tuple[str, int, int]]:
    """Status, attempt and failures of each step, as `charge:F`."""
    steps = SagaStep.objects.filter(saga_id=str(saga))
    return {f"{s.step}:{s.kind}": (s.status, s.attempt, s.failures) for s in steps}


def claimed_by(worker: str, *, lease: float = 0) -> Claimed:
    """Claim the one saga that there is, as a worker that dies at once; a suspect too."""
    lasting = timedelta(seconds=lease)
    found = claims.claim(worker=worker, limit=9, lease=lasting)
    (claimed,) = found or claims.claim_suspect(worker=worker, lease=lasting)
    return claimed
