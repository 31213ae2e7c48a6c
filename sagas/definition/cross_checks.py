"""Check declarations against each other, beyond a single class."""

from sagas.definition import registry
from sagas.definition.triggers import message_types, started_by
from sagas.errors import SagaDefinitionError


def check_message_types() -> None:
    """Check that messages of a type start a single saga, or cancel sagas, and never both.

    Raises:
        SagaDefinitionError: a type starts two sagas, or starts and cancels.
    """
    for message_type in message_types():
        _check_message_type(message_type)


def check_references() -> None:
    """Check that hooks and cancel rules name registered sagas.

    Raises:
        SagaDefinitionError: a name is unknown, so that a hook would never be called.
    """
    found = registry.current()
    hook = "a function of sagas.on_finish or sagas.on_park"
    named = dict.fromkeys(found.hooks.saga_names(), hook)
    rules = found.cancel_rules.saga_names()
    named |= {name: f"cancel_on({message_type!r})" for message_type, name in rules.items()}
    known = found.types.names()
    for name, declaration in named.items():
        if name not in known:
            raise SagaDefinitionError(
                f"{declaration} is for the saga {name!r}, which is none of those that there are: "
                f"{', '.join(known) or 'none'}"
            )


def _check_message_type(message_type: str) -> None:
    started = [f"{found.name}.{trigger.method_name}" for found, trigger in started_by(message_type)]
    if len(started) > 1:
        raise SagaDefinitionError(
            f"messages of type {message_type!r} would start {' and '.join(started)}: a message "
            "starts one saga; let each have a type of its own"
        )
    if started and registry.cancel_rule(message_type) is not None:
        raise SagaDefinitionError(
            f"messages of type {message_type!r} would start {started[0]} and cancel sagas too: "
            "give one of them another type"
        )
