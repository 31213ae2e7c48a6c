"""One saga in this worker: sagaz's engine drives it, and each step is wrapped with the journal.

What the journal has is not done again: a step that is `done` hands out its recorded result, a
failure that decided the saga is raised again. So a saga that was interrupted anywhere is resumed by
running it once more from the start.

Suspended (its lease lost, a compensation failed for good, the worker stopping), a run goes inert:
every later wrapper of it raises at once and writes nothing.

A failure is decided, and a pivot begun, without an `await` in between: of steps that run side by
side either the pivot sees the failure and does not begin, or the failure sees the pivot and parks.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar

from sagaz.core.decorators import SagaStepDefinition

from brokers.outage import Outage
from outbox.away import AWAY
from sagas import codec, journal
from sagas.contexts import changes, changes_of_async, visible
from sagas.errors import LeaseLost, StepRejected, UnstorableValue
from sagas.hooks import Ending
from sagas.identity import step_key
from sagas.journal import Claimed, StepRecord
from sagas.kinds import is_external
from sagas.models import StepKind, StepStatus
from sagas.outages import is_conflict, is_outage
from sagas.registry import SagaType
from sagas.scope import current_key, current_threads
from sagas.threads import Threads

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

FIRST_BACKOFF = 0.2
LONGEST_BACKOFF = 30.0
CONFLICT_PAUSE = 0.02


class Suspended(Exception):  # noqa: N818 - states the fact
    """This run goes no further; its text says why."""


class StepFailedBefore(Exception):  # noqa: N818 - states the fact
    """A replay has come to the failure that decided the saga."""


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    kind: StepKind
    function: Callable[[dict[str, Any]], Any]
    max_retries: int
    timeout: float | None
    is_pivot: bool = False

    @property
    def is_external(self) -> bool:
        return is_external(self.function)


class SagaRun:
    """Runs one claimed saga to its end, or to where it must stop."""

    def __init__(
        self,
        claimed: Claimed,
        saga_type: SagaType,
        *,
        journal_threads: Threads,
        call_threads: Threads,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._claimed = claimed
        self._saga = saga_type.saga_class()
        self._journal_threads = journal_threads
        self._call_threads = call_threads
        self._jitter = jitter
        self._outage = Outage("the database", logger=logger)
        self._context = claimed.context
        self._failure = claimed.failure
        self._pivots_begun: set[str] = set()
        self._parked = ""
        self._suspended = ""
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        """Wait for nothing any more: between two attempts, stop, and leave it to another worker."""
        self._hurry.set()

    def suspend(self, reason: str) -> None:
        """Stop after the step that runs; another worker goes on from there."""
        self._suspended = self._suspended or reason
        self._hurry.set()

    async def execute(self) -> Ending | None:
        """Run it; None where it was suspended and is another worker's now."""
        for definition in self._saga.get_steps():
            self._wrap(definition)
        token = current_threads.set(self._call_threads)
        try:
            context = await self._saga.run(self._claimed.context, saga_id=str(self._claimed.id))
            ending = Ending.COMPLETED
        except Exception as error:  # noqa: BLE001 - sagaz hands on whatever a step raised
            context = self._context
            ending = Ending.ROLLED_BACK
            self._failure = self._failure or _told(error)
        finally:
            current_threads.reset(token)
        if self._parked:
            ending = Ending.PARKED
        elif self._suspended:
            logger.info(
                "%s %s stops here: %s", self._claimed.name, self._claimed.key, self._suspended
            )
            return None
        reason = self._parked or ("" if ending is Ending.COMPLETED else self._failure)
        return await self._finish(ending, visible(context), reason)

    async def _finish(self, ending: Ending, context: dict[str, Any], reason: str) -> Ending | None:
        try:
            await self._write(journal.finish, self._claimed, ending, context, reason)
        except LeaseLost as error:
            logger.info("%s", error)
            return None
        return ending

    def _wrap(self, definition: SagaStepDefinition) -> None:
        """Replace a step's functions with ones that journal; sagaz's timeouts are off, they would
        give up while a thread still commits."""
        forward = _Step(
            definition.step_id,
            StepKind.FORWARD,
            definition.forward_fn,
            definition.max_retries,
            definition.timeout_seconds,
            definition.pivot,
        )
        undo = definition.compensation_fn or _nothing
        meta = getattr(undo, "_saga_compensation_meta", None)
        backward = _Step(
            definition.step_id,
            StepKind.COMPENSATION,
            undo,
            meta.max_retries if meta else 0,
            definition.compensation_timeout_seconds,
        )
        if forward.is_pivot and (forward.name, forward.kind) in self._claimed.steps:
            self._pivots_begun.add(forward.name)
        definition.forward_fn = partial(self._forward, forward)
        definition.compensation_fn = partial(self._compensate, backward)
        definition.timeout_seconds = None
        definition.compensation_timeout_seconds = None

    async def _forward(self, step: _Step, context: dict[str, Any]) -> Any:
        self._context = context
        record = self._claimed.steps.get((step.name, step.kind))
        if record is not None and record.status == StepStatus.DONE:
            return record.result
        self._stop_if_suspended()
        if self._failure:
            return self._replay_failure(step, record)
        if step.is_pivot:
            self._pivots_begun.add(step.name)
        return await self._attempts(step, context, record)

    def _replay_failure(self, step: _Step, record: StepRecord | None) -> None:
        """The saga had failed when it was interrupted: never decide anew. A step that may have had
        its effect is undone too, though sagaz would skip it."""
        if record is not None and record.status in (StepStatus.UNKNOWN, StepStatus.STARTED):
            self._undo_too(step)
        raise StepFailedBefore(self._failure)

    async def _compensate(self, step: _Step, context: dict[str, Any]) -> None:
        self._stop_if_suspended()
        record = self._claimed.steps.get((step.name, step.kind))
        if record is not None and record.status in (StepStatus.DONE, StepStatus.SKIPPED):
            context.update(record.result or {})
            return
        try:
            context.update(await self._attempts(step, context, record))
        except Suspended:
            raise
        except Exception as error:
            self._park(f"undoing {step.name} keeps failing: {_told(error)}")
            raise

    async def _attempts(
        self, step: _Step, context: dict[str, Any], record: StepRecord | None
    ) -> Any:
        """Try a step until it is done or its retries are spent."""
        attempt = _next_attempt(record)
        in_doubt = record is not None and record.status in (StepStatus.STARTED, StepStatus.UNKNOWN)
        while True:
            try:
                return await self._attempt(step, context, attempt)
            except Suspended:
                raise
            except LeaseLost as error:
                self.suspend(str(error))
                raise Suspended(str(error)) from error
            except Exception as error:
                is_no = isinstance(error, StepRejected | UnstorableValue)
                decides = is_no or attempt > step.max_retries
                if step.is_external and not isinstance(error, StepRejected):
                    in_doubt = True
                await self._failed(step, attempt, error, decides=decides, in_doubt=in_doubt)
                if decides:
                    raise
                self._log_retry(step, attempt, error)
            attempt += 1
            await self._rest(self._backoff(attempt))

    async def _attempt(self, step: _Step, context: dict[str, Any], attempt: int) -> Any:
        token = current_key.set(step_key(self._claimed.id, step.name, step.kind))
        try:
            if step.is_external:
                return await self._external(step, context, attempt)
            return await self._local(step, context, attempt)
        finally:
            current_key.reset(token)

    async def _local(self, step: _Step, context: dict[str, Any], attempt: int) -> Any:
        """Exactly once: where the connection broke at the commit, the journal tells whether it was
        made."""
        where = (self._claimed, step.name, step.kind)
        # A context of its own: a step beside this one may change the shared one meanwhile.
        work = partial(changes, step.function, dict(context))
        while True:
            try:
                return await self._journal_threads.run(
                    journal.done_locally, *where, attempt=attempt, work=work
                )
            except AWAY as error:
                if is_conflict(error):
                    await self._rest(CONFLICT_PAUSE * self._jitter())
                    continue
                if not is_outage(error):
                    raise
                await self._pause(error)
            record = await self._write(journal.step_record, *where)
            if record is not None and record.status == StepStatus.DONE:
                return record.result

    async def _external(self, step: _Step, context: dict[str, Any], attempt: int) -> Any:
        where = (self._claimed, step.name, step.kind)
        await self._write(journal.started, *where, attempt=attempt)
        result = await asyncio.wait_for(changes_of_async(step.function, context), step.timeout)
        encoded = codec.decode(codec.encode(result))
        await self._write(journal.done, *where, attempt=attempt, result=encoded)
        return encoded

    async def _failed(
        self, step: _Step, attempt: int, error: Exception, *, decides: bool, in_doubt: bool
    ) -> None:
        """Journal a failed attempt, and what follows from it. `in_doubt`: it, or one before it, may
        have had its effect."""
        decides = decides and step.kind is StepKind.FORWARD
        if step.is_pivot and isinstance(error, StepRejected) and not in_doubt:
            self._pivots_begun.discard(step.name)
        past_pivot = decides and bool(self._pivots_begun)
        if decides and not past_pivot:
            self._failure = self._failure or _told(error)
        try:
            await self._write(
                journal.failed,
                self._claimed,
                step.name,
                step.kind,
                attempt=attempt,
                error=_told(error),
                unknown=in_doubt,
                decides=decides and not past_pivot,
            )
        except Suspended:
            raise
        except Exception as unwritten:  # nothing may follow from what the journal does not have
            self.suspend(_told(unwritten))
            raise Suspended(_told(unwritten)) from unwritten
        if past_pivot:
            self._park(f"{step.name} failed past the point of no return: {_told(error)}")
        elif decides and in_doubt:
            self._undo_too(step)

    def _undo_too(self, step: _Step) -> None:
        self._saga._compensation_graph.mark_step_executed(step.name)  # noqa: SLF001 - no public way

    def _park(self, reason: str) -> None:
        self._parked = self._parked or reason
        self.suspend(reason)

    def _stop_if_suspended(self) -> None:
        if self._suspended:
            raise Suspended(self._suspended)

    async def _write(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Write to the journal; while the database is away, try on: every write may be repeated."""
        while True:
            try:
                result = await self._journal_threads.run(function, *args, **kwargs)
            except AWAY as error:
                await self._pause(error)
            else:
                self._outage.over()
                return result

    async def _pause(self, error: Exception) -> None:
        await self._rest(self._outage.failed(error))

    async def _rest(self, seconds: float) -> None:
        """Sleep; where the worker is to stop, leave the saga to another one instead."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), seconds)
            self.suspend("the worker is stopping")
        self._stop_if_suspended()

    def _backoff(self, attempt: int) -> float:
        return min(FIRST_BACKOFF * 2.0 ** (attempt - 2), LONGEST_BACKOFF) * (0.5 + self._jitter())

    def _log_retry(self, step: _Step, attempt: int, error: Exception) -> None:
        logger.warning(
            "%s %s: %s failed (attempt %d of %d), trying again: %s",
            self._claimed.name,
            self._claimed.key,
            step.name,
            attempt,
            step.max_retries + 1,
            _told(error),
        )


def _next_attempt(record: StepRecord | None) -> int:
    """An attempt that was interrupted spent no retry."""
    if record is None:
        return 1
    return record.attempt if record.status == StepStatus.STARTED else record.attempt + 1


def _told(error: BaseException) -> str:
    """The error as a person should read it."""
    if isinstance(error, StepRejected | StepFailedBefore) and str(error):
        return str(error)
    if isinstance(error, TimeoutError) and not str(error):
        return "timed out"
    return f"{type(error).__name__}: {error}"


def _nothing(_context: dict[str, Any]) -> None:
    """Undoes a step that declares no compensation."""
