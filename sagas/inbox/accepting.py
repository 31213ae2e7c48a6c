"""Accept commands: inbox row and saga row commit together, before the broker's offset.

A redelivered command meets its inbox row; a second command with the same business key meets the
saga's row. Either way nothing new happens.
"""

from collections.abc import Sequence
from typing import assert_never
from uuid import UUID

from django.db import transaction

from brokers import Record
from saga_runtime.database_errors import AWAY
from saga_runtime.logs import get_logger
from saga_runtime.text import describe_error
from sagas.crash_points import Point, reach
from sagas.errors import CancelRefused, UnknownSaga
from sagas.inbox import counters
from sagas.inbox.app_calls import CommandRefused, raise_outage
from sagas.inbox.commands import Cancel, Command, Nothing, Start, read_command
from sagas.inbox.places import Reserved, Worker, reserved_places
from sagas.inbox.sequences import Sequences
from sagas.inbox.undecided import Undecided
from sagas.journal.cancelling import request_cancel
from sagas.journal.inbox_rows import MessageIdentity, insert_accepted
from sagas.journal.new_sagas import insert_sagas, unknown_sagas
from sagas.journal.refusals import keep, refusal
from sagas.models import RefusedCommand, Saga

logger = get_logger(__name__)


def accept(
    records: Sequence[Record],
    *,
    consumer: str,
    sequences: Sequences | None = None,
    undecided: Undecided | None = None,
    worker: Worker | None = None,
) -> int:
    """Write records into the inbox, in one transaction.

    Args:
        records: records in the order of delivery.
        consumer: the group, under whose name the inbox remembers messages.
        sequences: the sequences accepted before, to count messages out of order.
        undecided: the tries of commands that cannot be judged; None to try without end.
        worker: runs new sagas at once, and hears of all that there is to do.

    Returns:
        How many of the records have given a worker something to do.

    Raises:
        CommandUndecided: a record has to be received again, and nothing is written.
        django.db.Error: our database is away, and nothing is written.
    """
    # Triggers run before the transaction: they may be slow, and must not hold its locks.
    commands, refused = _read(records, undecided)
    starts = sum(isinstance(command, Start) for command in commands)
    with reserved_places(worker, starts) as places:
        with transaction.atomic():
            # Refused records too: the offset that is committed afterwards covers them.
            keep(refused)
            # Before the sagas: where another consumer stores the same message, this waits for that
            # commit, and what follows finds the saga.
            unseen = _unseen(commands, consumer=consumer)
            changed = _store(unseen, places)
            reach(Point.BEFORE_INBOX_COMMIT)
        reach(Point.AFTER_INBOX_COMMIT)
    # Behind the commit: a batch that is rolled back comes again, and would be counted twice.
    counters.ACCEPTED.inc(len(unseen))
    counters.REFUSED.inc(len(refused))
    if sequences is not None:
        sequences.note(command.event for command in unseen)
    return changed


def _read(
    records: Sequence[Record], undecided: Undecided | None
) -> tuple[list[Command], list[RefusedCommand]]:
    """Return the commands among records, and a row to keep for each refused record."""
    commands = []
    refused = []
    for record in records:
        try:
            commands.append(read_command(record))
        except CommandRefused as error:
            logger.warning("refused %s: %s", record.place, error)
            refused.append(refusal(record, str(error)))
        except AWAY as error:  # raised by `raise_outage`
            if undecided is None:
                raise
            undecided.check(record, error, text := describe_error(error))
            logger.warning("refused %s: %s", record.place, text)
            refused.append(refusal(record, f"its trigger cannot ask the database: {text}"))
        except Exception as error:
            raise_outage(error)
            logger.exception("refused %s", record.place)
            refused.append(refusal(record, f"it cannot be read: {describe_error(error)}"))
    return commands, refused


def _unseen(commands: list[Command], *, consumer: str) -> list[Command]:
    """Insert inbox rows; return the commands that had none, each once.

    The saga's id would not do: after a deploy the same message may make a different business key.
    """
    each: dict[MessageIdentity, Command] = {}
    for command in commands:
        each.setdefault(command.identity, command)
    new = insert_accepted(each, consumer=consumer)
    return [command for identity, command in each.items() if identity in new]


def _store(commands: list[Command], places: Reserved) -> int:
    """Write the sagas and cancels of commands; return how many give a worker something to do."""
    sagas: list[Saga] = []
    cancels: list[Cancel] = []
    for command in commands:
        match command:
            case Start():
                sagas.append(command.saga)
            case Cancel():
                cancels.append(command)
            case Nothing():
                pass
            case _:
                assert_never(command)
    # Of two commands for one saga the first counts: `unknown_sagas()` keeps the last of an id.
    new = unknown_sagas(sagas[::-1])[::-1]
    places.claimed = insert_sagas(new, claim=places.claim)
    # After the sagas: a cancel may have come in the same batch as the command that it cancels.
    changed = len(new) + _request_cancels(cancels)
    places.waiting = changed - len(places.claimed)
    return changed


def _request_cancels(cancels: list[Cancel]) -> int:
    """Request cancels; return how many are accepted."""
    accepted = 0
    # In the order of ids: two consumers that lock the same sagas must not deadlock.
    for cancel in sorted(cancels, key=_saga_id):
        event = cancel.event
        try:
            request_cancel(cancel.saga_id, who=f"{event.type} {event.id}", reason=cancel.reason)
            accepted += 1
        except UnknownSaga:
            reason = f"there is no {cancel.saga_name} {cancel.key} to cancel"
            logger.warning("refused %s: %s", event.type, reason)
            keep([refusal(cancel.record, reason)])
        except CancelRefused as error:
            logger.info("%s comes too late: %s", event.type, error)
    return accepted


def _saga_id(cancel: Cancel) -> UUID:
    return cancel.saga_id
