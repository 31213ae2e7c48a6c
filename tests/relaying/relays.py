"""`manage.py run_outbox_relay`, as a process that a test stops and kills."""

import os
import signal
import subprocess
import time
from pathlib import Path

from tests import processes
from tests.e2e.service import until

START_TIMEOUT = 150.0


class RelayProcess:
    """One relay.

    Args:
        name: of its log, within `directory`.
        arguments: of the command.
        env: its settings.
    """

    def __init__(
        self, directory: Path, name: str, *arguments: str, command: tuple[str, ...], **env: str
    ) -> None:
        self._log = directory / f"{name}.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *arguments],
                env=processes.environment(directory) | env,
                cwd=directory,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        return self._log.read_text()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def is_ready(self) -> bool:
        return "relay: ready" in self.output

    def await_ready(self) -> None:
        until(lambda: self.is_ready or not self.is_running, timeout=START_TIMEOUT)
        assert self.is_running, self.output

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """SIGSTOP; returns once it has stopped."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def terminate(self, *, timeout: float = 30.0) -> tuple[int, float]:
        """SIGTERM; returns its exit status, and how many seconds it took."""
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout), time.monotonic() - began

    def interrupt(self, *, timeout: float) -> int:
        """SIGINT; returns its exit status."""
        self._process.send_signal(signal.SIGINT)
        return self.wait(timeout=timeout)

    def wait(self, *, timeout: float) -> int:
        """Its exit status, once it has ended."""
        return self._process.wait(timeout)

    def memory(self) -> float:
        """Resident, in MiB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1]) / 1024

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def clean_up(self) -> None:
        if self.is_running:
            self.go_on()
            self.kill()
