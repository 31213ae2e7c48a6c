"""Find the saga that a message starts, among the triggers collected by sagaz."""

from collections.abc import Iterator

from sagaz.core.triggers import RegisteredTrigger, TriggerRegistry

from sagas.definition.registry import saga_type
from sagas.definition.saga_types import SagaType, name_of


def trigger_for(message_type: str) -> tuple[SagaType, RegisteredTrigger] | None:
    """Return the saga that messages of a type start, in the newest version, and the trigger.

    None where no registered saga has a trigger for the type.
    """
    return next(started_by(message_type), None)


def started_by(message_type: str) -> Iterator[tuple[SagaType, RegisteredTrigger]]:
    """List each saga that messages of a type would start, with the trigger."""
    for trigger in TriggerRegistry.get_triggers(message_type):
        found = saga_type(name_of(trigger.saga_class))
        # sagaz keeps the triggers of older versions, and of classes that are not registered, too.
        if found is not None and found.saga_class is trigger.saga_class:
            yield found, trigger


def message_types() -> list[str]:
    """List the types of messages with a trigger, also of unregistered classes."""
    return list(TriggerRegistry.get_all())
