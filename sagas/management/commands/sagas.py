"""Show sagas and intervene: `manage.py sagas`."""

import argparse
import re
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from saga_runtime.commands import VisibleCommand
from saga_runtime.interventions import By, NoReason
from saga_runtime.processes import positive, whoever
from sagas.journal import cleaning
from sagas.models import SagaStatus, StepKind
from sagas.operations import interventions, reports
from sagas.operations.interventions import InterventionRefused


class Command(VisibleCommand):
    """Print reports of `operations.reports`, and call `operations.interventions`."""

    help = "Looks at sagas and refused commands, intervenes, and deletes what is old."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add a subcommand for each report and each intervention."""
        actions = parser.add_subparsers(dest="action", required=True)
        listing = actions.add_parser("list", help="the newest sagas")
        listing.add_argument("--status", choices=SagaStatus.values)
        listing.add_argument("--name")
        listing.add_argument("--limit", type=positive, default=50)
        listing.add_argument("--json", action="store_true")
        showing = actions.add_parser("show", help="one saga and its timeline")
        showing.add_argument("saga", help="id or business key")
        showing.add_argument("--json", action="store_true")
        refused = actions.add_parser("refused", help="the newest commands that became no saga")
        refused.add_argument("--limit", type=positive, default=50)
        refused.add_argument("--json", action="store_true")
        clean = actions.add_parser("clean", help=_CLEAN, description=_CLEAN)
        clean.add_argument(
            "--older-than", type=_days, required=True, metavar="DAYS", help="such as 30d"
        )
        clean.add_argument(
            "--batch",
            type=positive,
            default=cleaning.BATCH,
            help="rows deleted in one transaction (default %(default)s)",
        )
        clean.add_argument("--json", action="store_true")
        for name, text in _INTERVENTIONS.items():
            intervening = actions.add_parser(name, help=text)
            intervening.add_argument("saga", help="id or business key")
            if name in ("resolve", "skip"):
                intervening.add_argument("step")
            if name == "resolve":
                intervening.add_argument(
                    "--undo", action="store_true", help="the step's compensation, not the step"
                )
            intervening.add_argument("--by", default=whoever(), help="who (default: you)")
            intervening.add_argument("--why", required=True, help="kept with the saga")
            intervening.add_argument("--json", action="store_true")

    def handle(self, *, action: str, **options: Any) -> None:
        """Do the action.

        Raises:
            CommandError: the saga is unknown, or its state forbids the intervention.
        """
        try:
            if action == "list":
                self._list(**options)
            elif action == "refused":
                self._refused(**options)
            elif action == "clean":
                self._clean(**options)
            elif action == "show":
                self._show(**options)
            else:
                self._intervene(action, **options)
        except (InterventionRefused, NoReason) as error:
            raise CommandError(str(error)) from error

    def _list(self, *, status: str | None, name: str | None, limit: int, **options: Any) -> None:
        rows = reports.list_sagas(status=status, name=name, limit=limit)
        if options["json"]:
            self.say_json(rows)
            return
        self.say_table(rows, ("id", "name", "key", "status", "reason", "created_at"))

    def _refused(self, *, limit: int, **options: Any) -> None:
        rows = reports.list_refused_commands(limit=limit)
        if options["json"]:
            self.say_json(rows)
            return
        self.say_table(rows, ("received_at", "topic", "partition", "offset", "key", "reason"))

    def _clean(self, *, older_than: timedelta, batch: int, **options: Any) -> None:
        before = timezone.now() - older_than
        # Inbox rows go last: a row deleted before its saga would let a redelivered command start
        # the saga again, if this stopped in between.
        deleted = {
            "sagas": cleaning.clean_sagas(older_than=before, batch=batch),
            "inbox": cleaning.clean_inbox(older_than=before, batch=batch),
        }
        if options["json"]:
            self.say_json(deleted)
            return
        self.say(
            f"deleted: {deleted['sagas']} ended saga(s), {deleted['inbox']} row(s) of the inbox"
        )

    def _show(self, *, saga: str, **options: Any) -> None:
        report = reports.report_saga(interventions.find_saga(saga))
        if options["json"]:
            self.say_json(report)
            return
        for title, value in report["saga"].items():
            if value not in ("", None, False):
                self.say(f"{title:16} {value}")
        self.say_table(report["steps"], ("step", "kind", "status", "attempt", "key", "result"))
        self.say_table(
            report["timeline"],
            ("started_at", "step", "kind", "attempt", "status", "seconds", "worker", "error"),
        )
        for attempt in report["timeline"]:
            if attempt["traceback"]:
                of = "{step} {kind} {attempt}".format(**attempt)
                self.say_lines(f"traceback of {of}:", attempt["traceback"])
        if report["interventions"]:
            self.say_table(report["interventions"], ("at", "action", "step", "kind", "who", "why"))

    def _intervene(self, action: str, *, saga: str, by: str, why: str, **options: Any) -> None:
        found = interventions.find_saga(saga)
        who = By(by, why)
        match action:
            case "retry":
                interventions.retry(found.id, by=who)
            case "resolve":
                kind = StepKind.COMPENSATION if options["undo"] else StepKind.FORWARD
                interventions.resolve(found.id, options["step"], kind, by=who)
            case "skip":
                interventions.skip(found.id, options["step"], by=who)
            case "cancel":
                interventions.cancel(found.id, by=who)
            case "pause":
                interventions.pause(found.id, by=who)
            case "resume":
                interventions.resume(found.id, by=who)
        found.refresh_from_db()
        if options["json"]:
            self.say_json(reports.summarize_saga(found))
            return
        paused = ", paused" if found.paused else ""
        self.say(f"{found.name} {found.key}: {found.status}{paused}")


def _days(text: str) -> timedelta:
    if not (found := re.fullmatch(r"([1-9]\d{0,4})d", text)):
        raise argparse.ArgumentTypeError("give whole days, 1 or more, such as 30d")
    return timedelta(days=int(found[1]))


_CLEAN = (
    "delete ended sagas, and rows of the inbox, that are older; never a parked or unfinished saga. "
    "Keep them longer than the topics keep their messages (retention.ms): a command that is "
    "delivered again after its row and its saga are gone is carried out again"
)
_INTERVENTIONS = {
    "retry": "let a parked saga go on; what failed is tried again",
    "resolve": "count a step of a parked saga as done, because you have seen to it",
    "skip": "leave out a compensation of a parked saga",
    "cancel": "undo what is done, where that is still possible",
    "pause": "have no worker take the saga up",
    "resume": "let a paused saga be taken up again",
}
