"""Audit the orders from the command line."""

import argparse
import sys
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from orders.audit import Audit, audit_orders
from saga_runtime.commands import VisibleCommand


class Command(VisibleCommand):
    """Print every contradiction, and exit with 1 where there are any."""

    help = "Checks orders, stock, payments and shipments against each other (exit 1: they differ)."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the output's form."""
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, **options: Any) -> None:
        """Audit, and print the result."""
        max_age = timedelta(seconds=settings.ORDER_MAX_AGE)
        audit = audit_orders(now=timezone.now(), max_age=max_age)
        if options["json"]:
            self.say_json(audit.as_dict())
        else:
            self._print(audit)
        if audit.contradictions:
            sys.exit(1)

    def _print(self, audit: Audit) -> None:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(audit.orders.items()))
        self.say(f"orders: {counts or 'none'}")
        if audit.cleaned:
            self.say(f"sagas: {audit.cleaned} of orders that ended long ago are deleted")
        for contradiction in audit.contradictions:
            self.say(f"{contradiction.about}: {contradiction.what}")
        count = len(audit.contradictions)
        self.say(f"{count} contradiction(s)" if count else "clean")
