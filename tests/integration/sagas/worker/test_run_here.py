"""Importing `sagas` in a process that has no models yet."""

import subprocess
import sys

import pytest

from tests.processes import ROOT

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_package_can_be_imported_before_there_are_models() -> None:
    code = "import sys, sagas; assert 'sagas.models' not in sys.modules; sagas.run_saga"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last == "AttributeError: module 'sagas' has no attribute 'run_saga'", done.stderr
