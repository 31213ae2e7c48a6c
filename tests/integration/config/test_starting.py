"""What `manage.py up` waits for."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from config.serving.supervised import Part, Supervisor
from tests.unit.waiting import until

TALKS = "import sys, time; print({!r}, flush=True); sys.stdin.read()"


@contextmanager
def supervised(*parts: Part) -> Iterator[tuple[Supervisor, list[str]]]:
    said: list[str] = []
    supervisor = Supervisor(parts, say=said.append)
    supervisor.start()
    try:
        yield supervisor, said
    finally:
        supervisor.stop()
        supervisor.join()


def test_a_part_is_waited_for_until_it_says_that_it_works() -> None:
    def part(name: str, line: str, ready: str) -> Part:
        return Part(name, [sys.executable, "-c", TALKS.format(line)], ready=ready)

    with supervised(
        part("web", "x", ""),
        part("relay", "relay: started", "relay: ready"),
        part("consumer-1", "consumer: ready", "consumer: ready"),
        part("consumer-2", "not consumer: ready", "consumer: ready"),
    ) as (supervisor, said):
        until(lambda: len(said) == 4)
        until(lambda: "consumer-1" not in supervisor.unready())
        assert supervisor.unready() == ["relay", "consumer-2"]
        assert "consumer-1 | consumer: ready" in said
