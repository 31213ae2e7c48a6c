"""Read from /proc how much CPU time processes have used. Without /proc nothing is found."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """Hold a line of /proc.

    Attributes:
        pid: its id.
        parent: the parent's id.
        session: the session's id, which is the id of the process that began it.
        seconds: of CPU, with those of the children that have ended.
    """

    pid: int
    parent: int
    session: int
    seconds: float

    @property
    def command(self) -> str:
        """Return the command line."""
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            return ""


def processes() -> list[Process]:
    """Return all processes of this machine."""
    return [_parse(line) for line in _lines()]


def of_session(number: int) -> float:
    """Return the seconds of a session: of the process that began it, and all that it started."""
    return sum(each.seconds for each in processes() if each.session == number)


def of_postgresql(backend: int) -> float | None:
    """Return the seconds of a whole PostgreSQL server, or None where it runs elsewhere.

    Args:
        backend: the process of a connection, which is left out.
    """
    found = processes()
    server = next((each.parent for each in found if each.pid == backend), 0)
    if not any(each.pid == server and "postgres" in each.command for each in found):
        return None
    return sum(
        each.seconds for each in found if server in (each.pid, each.parent) and each.pid != backend
    )


def of_kafka() -> float | None:
    """Return the seconds of the one Kafka of this machine, or None where there is not one."""
    found = [each.seconds for each in processes() if "kafka.Kafka" in each.command]
    return found[0] if len(found) == 1 else None


def _lines() -> Iterator[str]:
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            yield file.read_text()
        except OSError:  # it has ended meanwhile
            continue


def _parse(line: str) -> Process:
    """Parse a line of /proc/PID/stat, whose second field may hold blanks and brackets."""
    begin, _, rest = line.rpartition(")")
    fields = rest.split()
    seconds = sum(map(int, fields[11:15])) / _TICKS  # utime, stime, cutime, cstime
    return Process(int(begin.split()[0]), int(fields[1]), int(fields[3]), seconds)
