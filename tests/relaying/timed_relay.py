"""`run_outbox_relay` that notes how long its cycles take:
`python -m tests.relaying.timed_relay FILE …` appends a line for each cycle with work: when it
ended, and its seconds."""

import sys
import time
from pathlib import Path
from typing import TextIO


def main(file: TextIO, arguments: list[str]) -> None:
    import django

    django.setup()
    from django.core.management import call_command

    from relay.cycle import Cycle

    run = Cycle.run

    def timed_run(cycle: Cycle, *, wait: float) -> bool:
        began = time.monotonic()
        moved = run(cycle, wait=wait)
        if moved:
            ended = time.monotonic()
            file.write(f"{ended} {ended - began}\n")
        return moved

    setattr(Cycle, "run", timed_run)  # noqa: B010 - mypy sees a method there
    call_command("run_outbox_relay", *arguments)


def cycles(file: Path, *, since: float, until: float) -> list[float]:
    """The seconds of the cycles that ended in this time, by the monotonic clock."""
    rows = (line.split() for line in file.read_text().splitlines(keepends=True) if line[-1] == "\n")
    return [float(took) for ended, took in rows if since <= float(ended) < until]


if __name__ == "__main__":
    with Path(sys.argv[1]).open("a", buffering=1) as opened:
        main(opened, sys.argv[2:])
