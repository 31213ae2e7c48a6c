"""Commands become sagas here: inbox row and saga row commit together, before the broker's offset.

A redelivered command meets its inbox row; a second command with the same business key meets the
saga's row. Either way nothing new happens.
"""

import inspect
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction

from brokers import Record
from brokers.cloudevents import CloudEvent, NotACloudEvent, from_record
from saga_runtime import database_errors
from saga_runtime.async_orm import heal_after
from saga_runtime.correlation import usable
from saga_runtime.database_errors import AWAY
from saga_runtime.event_loop import run_loop
from saga_runtime.logs import get_logger
from saga_runtime.strict_json import UnreadableJSON, read_json
from saga_runtime.text import describe_error, error_text, is_storable
from sagas.crash_points import Point, reach
from sagas.definition.cancel_rules import CancelRule
from sagas.definition.current_step import current_place
from sagas.definition.identity import key_of_message, saga_id
from sagas.definition.registry import cancel_rule
from sagas.definition.saga_types import SagaType
from sagas.definition.triggers import trigger_for
from sagas.errors import CancelRefused, StepRejected, UnknownSaga, UnstorableValue
from sagas.inbox import counters
from sagas.inbox.sequences import Sequences
from sagas.inbox.undecided import Undecided
from sagas.journal import codec
from sagas.journal.cancelling import request_cancel
from sagas.journal.inbox_rows import MessageIdentity, already_accepted, insert_accepted
from sagas.journal.new_sagas import insert_sagas, new_saga
from sagas.journal.refusals import keep, refusal
from sagas.models import Saga

logger = get_logger(__name__)

_MAX_TEXT = 255


class CommandRefused(Exception):  # noqa: N818 - the field's term
    """Raised for a record that cannot become a saga; its text is the reason that is kept."""


@dataclass(frozen=True, slots=True)
class _Cancel:
    saga_name: str
    key: str
    reason: str

    @property
    def saga_id(self) -> UUID:
        return saga_id(self.saga_name, self.key)


@dataclass(frozen=True, slots=True)
class _Command:
    """What a record asks for: a saga, the cancel of one, or nothing, where a trigger passes."""

    record: Record
    event: CloudEvent
    asks: Saga | _Cancel | None

    @property
    def identity(self) -> MessageIdentity:
        """The message's source and id, by which the inbox knows it again."""
        return self.event.source, self.event.id


def accept(
    records: Sequence[Record],
    *,
    consumer: str,
    sequences: Sequences | None = None,
    undecided: Undecided | None = None,
) -> int:
    """Write records into the inbox, in one transaction; returns how many of them have given a
    worker something to do.

    Args:
        consumer: the group, under whose name the inbox remembers messages.
        sequences: those that have been accepted before; it says what came out of order.
        undecided: those that could not be judged before; without it they are tried without end.

    Raises:
        CommandUndecided: one is to be received again, and nothing is written.
        django.db.Error: our database is away, and nothing is written.
    """
    commands = []
    refused = []
    for record in records:
        try:
            commands.append(_command(record))
        except CommandRefused as error:
            logger.warning("refused %s: %s", record.place, error)
            refused.append(refusal(record, str(error)))
        except AWAY as error:  # raised by `_raise_outage`
            if undecided is None:
                raise
            undecided.check(record, error, text := describe_error(error))
            logger.warning("refused %s: %s", record.place, text)
            refused.append(refusal(record, f"its trigger cannot ask the database: {text}"))
        except Exception as error:
            _raise_outage(error)
            logger.exception("refused %s", record.place)
            refused.append(refusal(record, f"it cannot be read: {describe_error(error)}"))
    with transaction.atomic():
        keep(refused)
        unseen = _unseen(commands, consumer=consumer)
        changed = _store(unseen, consumer=consumer)
        reach(Point.BEFORE_INBOX_COMMIT)
    reach(Point.AFTER_INBOX_COMMIT)
    counters.ACCEPTED.inc(len(unseen))
    counters.REFUSED.inc(len(refused))
    if sequences is not None:
        sequences.note(command.event for command in unseen)
    return changed


def _store(commands: list[_Command], *, consumer: str) -> int:
    insert_accepted([c.identity for c in commands], consumer=consumer)
    # Of two commands for one saga the first counts: `insert_sagas()` keeps the last of an id.
    new = insert_sagas([c.asks for c in reversed(commands) if isinstance(c.asks, Saga)])
    return new + _cancel([c for c in commands if isinstance(c.asks, _Cancel)])


def _cancel(commands: list[_Command]) -> int:
    """After the sagas that came with them; in one order: consumers must not meet crosswise."""
    cancels = sorted(((c.asks, c) for c in commands if isinstance(c.asks, _Cancel)), key=_saga_of)
    accepted = 0
    for cancel, command in cancels:
        try:
            request_cancel(
                cancel.saga_id, who=f"{command.event.type} {command.event.id}", reason=cancel.reason
            )
            accepted += 1
        except UnknownSaga:
            reason = f"there is no {cancel.saga_name} {cancel.key} to cancel"
            logger.warning("refused %s: %s", command.event.type, reason)
            keep([refusal(command.record, reason)])
        except CancelRefused as error:
            logger.info("%s comes too late: %s", command.event.type, error)
    return accepted


def _saga_of(pair: tuple[_Cancel, _Command]) -> UUID:
    return pair[0].saga_id


def _unseen(commands: list[_Command], *, consumer: str) -> list[_Command]:
    """Those that have no inbox row, each once. The saga's own id would not tell: after a deploy the
    same message may make another business key."""
    seen = already_accepted([command.identity for command in commands], consumer=consumer)
    new = []
    for command in commands:
        if command.identity not in seen:
            seen.add(command.identity)
            new.append(command)
    return new


def _command(record: Record) -> _Command:
    try:
        event = from_record(record)
    except NotACloudEvent as error:
        raise CommandRefused(str(error)) from error
    for name, text in (("ce_id", event.id), ("ce_source", event.source)):
        if not is_storable(text, longest=_MAX_TEXT):
            raise CommandRefused(f"{name} is longer than 255 characters or holds NUL")
    rule = cancel_rule(event.type)
    if rule is not None:
        return _Command(record, event, _cancel_of(rule, _payload(event), event))
    found = trigger_for(event.type)
    if found is None:
        raise CommandRefused(f"no saga answers to messages of type {event.type!r}")
    saga_type, trigger = found
    payload = _payload(event)
    context = _context(saga_type, trigger.method_name, payload)
    if context is None:
        return _Command(record, event, None)
    key = _business_key(trigger.metadata.idempotency_key, payload, event)
    return _Command(record, event, _saga(saga_type, key, context, event))


def _cancel_of(rule: CancelRule, payload: object, event: CloudEvent) -> _Cancel:
    key = _business_key(rule.key, payload, event)
    with _refusing("the reason for the cancel cannot be read"):
        reason = str(rule.reason(payload))
    return _Cancel(rule.saga_name, key, reason)


def _payload(event: CloudEvent) -> object:
    try:
        return read_json(event.data)
    except UnreadableJSON as error:
        raise CommandRefused(f"the value {error}") from error


def _context(saga_type: SagaType, method: str, payload: object) -> str | None:
    """The saga's first context as the trigger makes it, encoded; None where it wants none."""
    with _refusing(f"{saga_type.name}.{method} cannot read it"):
        context = getattr(saga_type.saga_class(), method)(payload)
        if inspect.iscoroutine(context):
            context = run_loop(_healing(context))
        try:
            return None if context is None else codec.encode(dict(context))
        except UnstorableValue as error:
            raise CommandRefused(f"the context of {saga_type.name}: {error}") from error


async def _healing(context: Coroutine[Any, Any, Any]) -> Any:
    """Await a trigger; where it met a broken connection of the async ORM, the next one does not."""
    try:
        return await context
    except BaseException as error:
        await heal_after(error)
        raise


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Refuse the command where an app's function raises, whatever that is: a CancelledError or a
    SystemExit of its own must not end the consumer. Ctrl-C is nobody's own."""
    token = current_place.set("a trigger")
    try:
        yield
    except (CommandRefused, KeyboardInterrupt):
        raise
    except StepRejected as error:
        raise CommandRefused(error_text(error)) from error
    except BaseException as error:
        _raise_outage(error)
        raise CommandRefused(f"{what}: {describe_error(error)}") from error
    finally:
        current_place.reset(token)


def _raise_outage(error: BaseException) -> None:
    """While our own database is away, what a message says cannot be compared: that is no reason to
    refuse it, and neither is a statement that our database has given up. Another database's outage
    is: no partition stands still for it."""
    to_blame = database_errors.ours_to_blame(error) or database_errors.ours_timed_out(error)
    if to_blame is not None:
        raise to_blame from to_blame.__cause__  # which has its code


def _business_key(rule: object, payload: object, event: CloudEvent) -> str:
    key: Any
    if rule is None:
        key = key_of_message(event.source, event.id)
    else:
        with _refusing(f"the business key {rule!r} is not in the payload"):
            key = rule(payload) if callable(rule) else payload[rule]  # type: ignore[index]
    text = str(key) if isinstance(key, str | int | UUID) and not isinstance(key, bool) else ""
    if not text or not is_storable(text, longest=_MAX_TEXT):
        raise CommandRefused(
            f"the business key {rule!r} must be a text of 1 to 255 characters, without NUL"
        )
    return text


def _saga(saga_type: SagaType, key: str, context: str, event: CloudEvent) -> Saga:
    correlation = usable(id=event.correlation_id, traceparent=event.traceparent)
    return new_saga(saga_type, key, context=context, correlation=correlation)
