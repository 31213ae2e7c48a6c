"""Starts a management command in next to no time: Django is imported once, and forked.

    python -m tests.e2e.project.forks

Each line of its input is a command; the answer is the process id. What the command says goes to
standard error. The processes end with the input. They stay zombies until then, so that no id is
given out twice.
"""

import os
import sys
import threading
import traceback
from importlib import import_module

import django

USED_LATER = (
    "brokers.kafka_broker",
    "orders.payments.stripe",
    "psycopg_pool",
    "sagas.worker.service",
)


def main() -> None:
    django.setup()
    for name in USED_LATER:
        import_module(name)
    assert threading.active_count() == 1, "a fork has no other thread"
    lifeline, held = os.pipe()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.close(held)
            os.dup2(lifeline, 0)
            os.dup2(2, 1)
            _run(line.split())
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _run(command: list[str]) -> None:
    from django.core.management import call_command

    try:
        call_command(*command)
    except BaseException:  # noqa: BLE001 - the parent's code must not run in the child
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
