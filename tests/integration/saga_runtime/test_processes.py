"""How a process ends."""

import subprocess
import sys

import pytest

from tests.processes import TIMEOUT

pytestmark = pytest.mark.django_db(transaction=True)
PROCESS = """
import django, threading, time
from django.core.management.base import BaseCommand
django.setup()
from saga_runtime.processes import exit_within
threading.Thread(target=time.sleep, args=(600,)).start()
print("working", flush=True)
try:
    raise SystemExit({code})
finally:
    exit_within(0.5)
"""


@pytest.mark.parametrize("code", [0, 3])
def test_a_process_ends_with_its_code_although_a_thread_hangs(code: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROCESS.format(code=code)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (code, "working\n"), ended.stderr
