"""Tests that share a server of their own run in one worker of pytest-xdist."""

import os
import subprocess
import sys
from pathlib import Path

from tests.processes import TIMEOUT

TESTS = """
import os
from pathlib import Path
import pytest

@pytest.mark.xdist_group("these")
@pytest.mark.parametrize("number", range(20))
def test_one(number):
    Path(f"{number}.worker").write_text(os.environ["PYTEST_XDIST_WORKER"])
"""


def test_a_group_keeps_to_one_worker(tmp_path: Path) -> None:
    """Otherwise each worker would start a server, and no test would fail."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_these.py").write_text(TESTS)
    options = ("-q", "-p", "no:django", "-n", "2", "--dist", "loadgroup")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        env={name: value for name, value in os.environ.items() if "PYTEST" not in name},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    workers = [path.read_text() for path in tmp_path.glob("*.worker")]
    assert (len(workers), len(set(workers))) == (20, 1)
