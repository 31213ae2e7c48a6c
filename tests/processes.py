"""Runs manage.py as a user does: in a process of its own, with a SQLite file of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MANAGE = (sys.executable, str(ROOT / "manage.py"))
TIMEOUT = 300.0  # seconds, for a command that hangs
# What this machine's environment must not decide. Without bytecode every start compiles Django and
# all else anew, which takes two seconds.
_SETTINGS = re.compile(
    r"DEBUG|SECRET_KEY|LOG_LEVEL|(DATABASE|SAGAZ|OUTBOX|SAGA|ORDER|PAYMENT|STRIPE|KAFKA|BROKER)_.*"
    r"|PYTHONDONTWRITEBYTECODE"
)


def environment(directory: Path) -> dict[str, str]:
    """Default settings, with everything that is kept in this directory."""
    kept = {name: value for name, value in os.environ.items() if not _SETTINGS.fullmatch(name)}
    return kept | {
        "DATABASE_URL": f"sqlite:///{directory / 'db.sqlite3'}",
        "PYTHONUNBUFFERED": "1",
    }


def manage(directory: Path, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of manage.py to its end."""
    return run(directory, *MANAGE, *arguments, **env)


def run(directory: Path, *command: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run any command to its end, with default settings, in this directory."""
    return subprocess.run(
        command,
        env=environment(directory) | env,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def refusal(done: "subprocess.CompletedProcess[str]") -> str:
    """The one line with which a command refused."""
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]
