"""Call an app's functions for reading a message, and handle their errors.

The functions are triggers, rules for business keys, and reasons for cancels. An error refuses the
message, with an exception: while our own database is away, the message is not judged at all.
"""

import inspect
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from saga_runtime import database_errors
from saga_runtime.async_orm import heal_after
from saga_runtime.event_loop import run_loop
from saga_runtime.text import describe_error, error_text
from sagas.definition.current_step import current_place
from sagas.errors import StepRejected


class CommandRefused(Exception):  # noqa: N818 - the field's term
    """Raised for a record that cannot become a command; the text is kept as the reason."""


@contextmanager
def refusing(failure: str) -> Iterator[None]:
    """Refuse the command where the app's function in the block raises.

    A CancelledError or a SystemExit of the function's own must not end the consumer, so anything
    is caught. Ctrl-C is nobody's own, and goes through.

    Args:
        failure: what the error means for the command; stands before the error's text.

    Raises:
        CommandRefused: the function has raised.
        django.db.Error: our database is away, or has given up a statement.
    """
    token = current_place.set("a trigger")
    try:
        yield
    except (CommandRefused, KeyboardInterrupt):
        raise
    except StepRejected as error:
        raise CommandRefused(error_text(error)) from error
    except BaseException as error:
        raise_outage(error)
        raise CommandRefused(f"{failure}: {describe_error(error)}") from error
    finally:
        current_place.reset(token)


def call_trigger(trigger: Any, payload: object) -> Any:
    """Call a trigger with a message's payload, and await the result of an `async def` trigger.

    Returns:
        The saga's first context, or None where no saga is to start.
    """
    context = trigger(payload)
    return run_loop(_awaited(context)) if inspect.iscoroutine(context) else context


def raise_outage(error: BaseException) -> None:
    """Raise our database's error where `error` comes from our database; otherwise do nothing.

    While our own database is away, or gives up a statement, a message cannot be judged, and so is
    not refused. The outage of a foreign database refuses the message: no partition may stand still
    for a foreign database.

    Raises:
        django.db.Error: our database is away, or has given up a statement.
    """
    to_blame = database_errors.ours_to_blame(error) or database_errors.ours_timed_out(error)
    if to_blame is not None:
        # With its own cause: that has the database's code, by which an outage is known.
        raise to_blame from to_blame.__cause__


async def _awaited(context: Coroutine[Any, Any, Any]) -> Any:
    """Await a trigger; leave no broken connection of the async ORM behind."""
    try:
        return await context
    except BaseException as error:
        await heal_after(error)
        raise
