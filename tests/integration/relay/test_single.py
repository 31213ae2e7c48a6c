"""One relay at a time works on a database file."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connection

from relay.single import AlreadyRunning, lock_file, only_relay

pytestmark = pytest.mark.django_db(transaction=True)
HOLD = """
import sys, django
django.setup()
from relay.single import only_relay
with only_relay("manage.py up"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.on_sqlite
class TestOneRelay:
    @pytest.fixture
    def database(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        path = tmp_path / "orders.sqlite3"
        monkeypatch.setitem(connection.settings_dict, "NAME", str(path))
        return path

    def test_a_second_is_refused_until_the_first_is_killed(self, database: Path) -> None:
        first = subprocess.Popen(
            [sys.executable, "-c", HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ
            | {
                "DATABASE_URL": f"sqlite:///{database}",
                "DJANGO_SETTINGS_MODULE": "config.settings",
            },
        )
        assert first.stdin is not None
        assert first.stdout is not None
        with first, first.stdin, first.stdout:
            assert first.stdout.readline() == b"held\n"
            message = rf"`manage.py up` \(process {first.pid}\) works on .*{database.name} already"
            with pytest.raises(AlreadyRunning, match=message), only_relay("x"):
                pass
            first.send_signal(signal.SIGKILL)
            first.wait()
        with only_relay("x"):
            pass

    def test_the_same_file_by_another_name(self, database: Path, tmp_path: Path) -> None:
        database.touch()
        lock = lock_file()
        (tmp_path / "link.sqlite3").symlink_to(database)
        connection.settings_dict["NAME"] = str(tmp_path / "link.sqlite3")
        assert lock_file() == lock
