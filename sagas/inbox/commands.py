"""Read a record as a command: `Start` a saga, `Cancel` a saga, or `Nothing`. Writes nothing."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from brokers import Record
from brokers.cloudevents import CloudEvent, NotACloudEvent, from_record
from saga_runtime.correlation import usable
from saga_runtime.strict_json import UnreadableJSON, read_json
from saga_runtime.text import is_storable
from sagas.definition.cancel_rules import CancelRule
from sagas.definition.identity import key_of_message, saga_id
from sagas.definition.registry import cancel_rule
from sagas.definition.saga_types import SagaType
from sagas.definition.triggers import trigger_for
from sagas.errors import UnstorableValue
from sagas.inbox.app_calls import CommandRefused, call_trigger, refusing
from sagas.journal import codec
from sagas.journal.inbox_rows import MessageIdentity
from sagas.journal.new_sagas import new_saga
from sagas.models import Saga

LONGEST_TEXT = 255
"""Characters of a message's id or source, or of a business key, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Command:
    """Keep the message of a command.

    Attributes:
        record: the message as the broker delivers it.
        event: the message as CloudEvents defines it.
    """

    record: Record
    event: CloudEvent

    @property
    def identity(self) -> MessageIdentity:
        """Return the source and the id: the inbox recognizes a message by both."""
        return self.event.source, self.event.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Start(_Command):
    """Ask for a new saga; `saga` is the unsaved row."""

    saga: Saga


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel(_Command):
    """Ask for the cancel of the saga with this name and business key; `reason` may be empty."""

    saga_name: str
    key: str
    reason: str

    @property
    def saga_id(self) -> UUID:
        """Return the id of the saga to cancel."""
        return saga_id(self.saga_name, self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing(_Command):
    """Ask for nothing: the trigger has looked at the message and wants no saga."""


Command = Start | Cancel | Nothing


def read_command(record: Record) -> Command:
    """Read a record as a command.

    Raises:
        CommandRefused: the record is no command; the text says why.
        django.db.Error: our database is away, and a trigger needs it.
    """
    event = _event(record)
    rule = cancel_rule(event.type)
    if rule is not None:
        return _cancel(record, event, rule)
    found = trigger_for(event.type)
    if found is None:
        raise CommandRefused(f"no saga answers to messages of type {event.type!r}")
    saga_type, trigger = found
    payload = _payload(event)
    context = _first_context(saga_type, trigger.method_name, payload)
    if context is None:
        return Nothing(record=record, event=event)
    key = _business_key(trigger.metadata.idempotency_key, payload, event)
    correlation = usable(id=event.correlation_id, traceparent=event.traceparent)
    saga = new_saga(saga_type, key, context=context, correlation=correlation)
    return Start(record=record, event=event, saga=saga)


def _event(record: Record) -> CloudEvent:
    try:
        event = from_record(record)
    except NotACloudEvent as error:
        raise CommandRefused(str(error)) from error
    for name, text in (("ce_id", event.id), ("ce_source", event.source)):
        if not is_storable(text, longest=LONGEST_TEXT):
            raise CommandRefused(f"{name} is longer than {LONGEST_TEXT} characters or holds NUL")
    return event


def _cancel(record: Record, event: CloudEvent, rule: CancelRule) -> Cancel:
    payload = _payload(event)
    key = _business_key(rule.key, payload, event)
    with refusing("the reason for the cancel cannot be read"):
        reason = str(rule.reason(payload))
    return Cancel(record=record, event=event, saga_name=rule.saga_name, key=key, reason=reason)


def _payload(event: CloudEvent) -> object:
    try:
        return read_json(event.data)
    except UnreadableJSON as error:
        raise CommandRefused(f"the value {error}") from error


def _first_context(saga_type: SagaType, method: str, payload: object) -> str | None:
    """Return a trigger's context, encoded; None where the trigger wants no saga."""
    with refusing(f"{saga_type.name}.{method} cannot read it"):
        context = call_trigger(getattr(saga_type.instances.new(), method), payload)
        try:
            return None if context is None else codec.encode(dict(context))
        except UnstorableValue as error:
            raise CommandRefused(f"the context of {saga_type.name}: {error}") from error


def _business_key(rule: object, payload: object, event: CloudEvent) -> str:
    key: Any
    if rule is None:
        key = key_of_message(event.source, event.id)
    else:
        with refusing(f"the business key {rule!r} is not in the payload"):
            key = rule(payload) if callable(rule) else payload[rule]  # type: ignore[index]
    # True and False are numbers to Python, but nobody's business key.
    text = str(key) if isinstance(key, str | int | UUID) and not isinstance(key, bool) else ""
    if not text or not is_storable(text, longest=LONGEST_TEXT):
        raise CommandRefused(
            f"the business key {rule!r} must be a text of 1 to {LONGEST_TEXT} characters, "
            "without NUL"
        )
    return text
