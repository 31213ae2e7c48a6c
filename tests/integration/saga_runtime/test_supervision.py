"""What a supervisor does with its processes: it waits for them, starts them again, ends them."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from saga_runtime.supervision import Part, Supervisor
from tests.unit.waiting import until

TALKS = "import sys; print({!r}, flush=True); sys.stdin.read()"
ENDS = "import sys; print({!r}, flush=True); sys.exit({})"
LOGS = "import sys; print('said', flush=True); print('logged', file=sys.stderr, flush=True)"


def part(name: str, code: str, **options: object) -> Part:
    return Part(name, [sys.executable, "-c", code], **options)  # type: ignore[arg-type]


@contextmanager
def supervised(
    *groups: Sequence[Part], gives_up: bool = False
) -> Iterator[tuple[Supervisor, list[str]]]:
    said: list[str] = []
    supervisor = Supervisor(groups, say=said.append, gives_up=gives_up)
    supervisor.start()
    try:
        yield supervisor, said
    finally:
        supervisor.stop()
        supervisor.join()


def test_a_part_is_waited_for_until_it_says_that_it_works() -> None:
    parts = [
        part("web", TALKS.format("x")),
        part("relay", TALKS.format("relay: started"), ready="relay: ready"),
        part("consumer-1", TALKS.format("consumer: ready"), ready="consumer: ready"),
        part("consumer-2", TALKS.format("not consumer: ready"), ready="consumer: ready"),
    ]
    with supervised(parts) as (supervisor, said):
        until(lambda: len(said) == 4)
        until(lambda: "consumer-1" not in supervisor.unready())
        assert supervisor.unready() == ["relay", "consumer-2"]
        assert "consumer-1 | consumer: ready" in said


def test_groups_end_one_after_the_other() -> None:
    ends = "import signal, sys; signal.sigwait([signal.SIGTERM]); print('ended', flush=True)"
    blocks = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); "
    code = f"{blocks}print('ready', flush=True); {ends}"
    first, second = ([part(name, code, ready="ready")] for name in ("first", "second"))
    with supervised(first, second) as (supervisor, said):
        until(lambda: not supervisor.unready())
    assert said[-2:] == ["first  | ended", "second | ended"]


def test_one_that_ends_is_started_again() -> None:
    with supervised([part("relay", ENDS.format("ready", 3), ready="ready")]) as (_, said):
        until(lambda: said.count("relay | ready") == 2)
    assert said[:2] == [
        "relay | ready",
        "relay | ended with exit code 3, starting it again in 0.5 s",
    ]


def test_one_that_leaves_a_process_behind_with_its_output_is_started_again() -> None:
    """A step may start a program, which outlives the worker."""
    code = (
        "import os, subprocess, sys, time; print('ready', flush=True);"
        "left = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "print(left.pid, flush=True); sys.exit(3)"
    )
    with supervised([part("worker", code, ready="ready")]) as (_, said):
        until(lambda: said.count("worker | ready") == 2, timeout=60)
        until(lambda: len(left_behind(said)) == 2)
    for pid in left_behind(said):
        os.kill(pid, signal.SIGKILL)


def left_behind(said: Sequence[str]) -> list[int]:
    words = [line.removeprefix("worker | ") for line in said]
    return [int(word) for word in words if word.isdecimal()]


def test_one_that_has_never_worked_is_started_again_where_nobody_gives_up() -> None:
    with supervised([part("relay", ENDS.format("error", 1), ready="ready")]) as (supervisor, said):
        until(lambda: said.count("relay | error") == 2)
    assert supervisor.failure == ""


class TestGivingUp:
    def test_one_that_has_never_worked_ends_all(self) -> None:
        parts = [
            part("consumer-1", TALKS.format("ready"), ready="ready"),
            part("consumer-2", ENDS.format("error", 1), ready="ready"),
        ]
        with supervised(parts, gives_up=True) as (supervisor, said):
            supervisor.join()
        assert supervisor.failure == "consumer-2 ended with exit code 1"
        assert said.count("consumer-2 | error") == 1

    def test_one_that_has_worked_is_started_again(self) -> None:
        parts = [part("consumer", ENDS.format("ready", 1), ready="ready")]
        with supervised(parts, gives_up=True) as (supervisor, said):
            until(lambda: said.count("consumer | ready") == 2)
        assert supervisor.failure == ""

    def test_one_that_was_killed_is_started_again(self) -> None:
        """As by the kernel, where memory is short: not the user's mistake."""
        code = "import os; print('started', flush=True); os.kill(os.getpid(), 9)"
        with supervised([part("consumer", code, ready="ready")], gives_up=True) as (_, said):
            until(lambda: said.count("consumer | started") == 2)

    def test_whatever_fails_meanwhile_ends_all(self) -> None:
        def fails() -> None:
            raise OSError("no space left")

        supervisor = Supervisor([[part("consumer", TALKS.format("ready"))]], say=lambda _: None)
        supervisor.start()
        with pytest.raises(OSError, match="no space left"):
            supervisor.join(meanwhile=fails)


def test_logs_may_go_past_the_supervisor_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    parts = [part("mixed", LOGS), part("apart", LOGS, logs_apart=True)]
    with supervised(parts) as (_, said):
        until(lambda: said.count("apart | said") == said.count("mixed | logged") == 1)
    assert "apart | logged" not in said
    assert "logged\n" in capfd.readouterr().err


def test_a_part_has_variables_of_its_own() -> None:
    code = "import os; print(os.environ['OWN'], os.environ['SUPERVISED'], flush=True)"
    with supervised([part("web", code, environment={"OWN": "mine"})]) as (_, said):
        until(lambda: "web | mine 1" in said)
