"""Place many orders from the command line."""

import argparse
from typing import Any

from django.core.management.base import CommandError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from orders.load_test import LoadTest, Summary
from saga_runtime.commands import VisibleCommand
from saga_runtime.processes import positive


class Command(VisibleCommand):
    """Run a load test, with a progress bar."""

    help = "Places many orders over HTTP, follows each to its end, and sums up."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the load's size and shape."""
        parser.add_argument("--count", type=positive, required=True, help="how many orders")
        parser.add_argument(
            "--rate", type=float, help="orders a second (default: as fast as it goes)"
        )
        parser.add_argument("--url", default="http://127.0.0.1:8000", help="the service's address")
        parser.add_argument("--concurrency", type=positive, default=10, help="requests at a time")
        parser.add_argument("--product", default="ITEM-1", help="what to order")
        parser.add_argument(
            "--declined", type=_share, default=0.0, help="share, 0 to 1, whose payment is declined"
        )
        parser.add_argument(
            "--retry-for", type=float, default=0.0, help="seconds to try again while it is away"
        )
        parser.add_argument(
            "--patience", type=float, default=120.0, help="seconds to wait for the last end"
        )

    def handle(self, *, count: int, rate: float | None, url: str, **options: Any) -> None:
        """Run the test, and print the summary."""
        if rate is not None and rate <= 0:
            raise CommandError("--rate must be more than 0")
        if not url.startswith(("http://", "https://")):
            raise CommandError(f"--url {url!r} must begin with http:// or https://")
        with _progress() as progress:
            placed = progress.add_task("placed", total=count)
            ended = progress.add_task("ended", total=count)
            load = LoadTest(
                url,
                count=count,
                rate=rate,
                concurrency=options["concurrency"],
                product=options["product"],
                declined=options["declined"],
                retry_for=options["retry_for"],
                patience=options["patience"],
                on_placed=lambda: progress.advance(placed),
                on_ended=lambda: progress.advance(ended),
            )
            summary = load.run()
        self._print(summary, count)

    def _print(self, summary: Summary, count: int) -> None:
        answers = ", ".join(f"{n} x {status}" for status, n in sorted(summary.answers.items()))
        ends = ", ".join(f"{n} {status}" for status, n in sorted(summary.ends.items()))
        per_second = count / summary.placing_seconds
        self.say(f"answers: {answers}")
        self.say(f"orders:  {ends or 'none'}")
        self.say(
            f"placed in {summary.placing_seconds:.1f} s ({per_second:.0f}/s), "
            f"ended after {summary.ending_seconds:.1f} s"
        )
        if not summary.all_accepted:
            raise CommandError("not every order was accepted: is the service running there?")
        if not summary.all_ended:
            raise CommandError(
                "not every order has ended: raise --patience, or look at the consumer"
            )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:>6}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError("must be 0 to 1")
    return share
