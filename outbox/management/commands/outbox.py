"""Look at the outbox from the command line, and intervene."""

import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from outbox import interventions, reports
from outbox.errors import OutboxError
from saga_runtime.commands import VisibleCommand
from saga_runtime.interventions import By, NoReason
from saga_runtime.processes import positive, whoever


class Command(VisibleCommand):
    """Show the outbox and parked messages; retry, edit or skip messages."""

    help = "Looks at the outbox and at parked messages, and intervenes."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add an action for each thing to look at or to do."""
        actions = parser.add_subparsers(dest="action", required=True)
        status = actions.add_parser("status", help="what waits, what is parked, who relays")
        parked = actions.add_parser("parked", help="the keys with parked messages, and why")
        log = actions.add_parser("log", help="what people did about parked messages")
        for listing in (parked, log):
            listing.add_argument("--limit", type=positive, default=50)
        for looking in (status, parked, log):
            looking.add_argument("--json", action="store_true")
        retry = actions.add_parser("retry", help="send keys' parked messages again, in order")
        which = retry.add_mutually_exclusive_group(required=True)
        which.add_argument("reference", nargs="?", help="the key, or the id of one of its messages")
        which.add_argument("--key", help="the same, where it could be either")
        which.add_argument("--message", type=positive, help="the same, where it could be either")
        which.add_argument("--topic", help="every key with a parked message of this topic")
        which.add_argument("--all", action="store_true", help="every key")
        edit = actions.add_parser("edit", help="change a parked message, and send its key again")
        edit.add_argument("message", type=positive, help="its id")
        edit.add_argument("--payload", type=Path, help="a file with the new payload, JSON in UTF-8")
        edit.add_argument("--topic", help="another topic")
        skip = actions.add_parser("skip", help="never send a message, and send its key's others")
        skip.add_argument("message", type=positive, help="its id")
        for intervening in (retry, edit, skip):
            intervening.add_argument("--by", default=whoever(), help="who (default: you)")
            intervening.add_argument("--why", required=True, help="kept for good")
            intervening.add_argument("--json", action="store_true")

    def handle(self, *, action: str, **options: Any) -> None:
        """Run the action; an error of the user's ends in one line."""
        try:
            match action:
                case "status":
                    self._status(as_json=options["json"])
                case "parked":
                    self._table(reports.parked(limit=options["limit"]), as_json=options["json"])
                case "log":
                    rows = reports.interventions(limit=options["limit"])
                    self._table(rows, as_json=options["json"])
                case _:
                    self._intervene(action, **options)
        except (OutboxError, NoReason, OSError, UnicodeError) as error:
            raise CommandError(str(error)) from error

    def _status(self, *, as_json: bool) -> None:
        status = reports.status()
        if as_json:
            self.say_json(status)
            return
        status["waiting"] = f"about {status['waiting']}"
        for name, value in status.items():
            if name != "relays" and value is not None:
                self.say(f"{name:16} {value}")
        self._table(status["relays"], as_json=False)

    def _intervene(self, action: str, *, by: str, why: str, **options: Any) -> None:
        who = By(by, why)
        match action:
            case "retry":
                if options["all"] or options["topic"] is not None:
                    self._retry_many(who, **options)
                    return
                count = _retry(who, **options)
            case "edit":
                file = options["payload"]
                payload = file.read_bytes() if file else None
                count = interventions.edit(
                    options["message"], payload=payload, topic=options["topic"], by=who
                )
            case _:
                count = interventions.skip(options["message"], by=who)
        if options["json"]:
            self.say_json({"put_back": count})
        else:
            self.say(f"{count} message(s) of the key are back in the outbox")

    def _retry_many(self, by: By, *, topic: str | None, json: bool, **_: Any) -> None:
        put_back = interventions.retry_many(topic=topic, by=by)
        if json:
            self.say_json({"keys": len(put_back), "put_back": put_back.total()})
        else:
            self.say(
                f"{put_back.total()} message(s) of {len(put_back)} key(s) are back in the outbox"
            )

    def _table(self, rows: list[dict[str, Any]], *, as_json: bool) -> None:
        if as_json:
            self.say_json(rows)
        elif rows:
            self.say_table(rows, list(rows[0]))
        else:
            self.say("none")


def _retry(by: By, *, reference: str, key: str | None, message: int | None, **_: Any) -> int:
    if key is not None:
        return interventions.retry_key(key, by=by)
    if message is not None:
        return interventions.retry_message(message, by=by)
    return interventions.retry(reference, by=by)
