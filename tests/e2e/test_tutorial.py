"""The project of docs/tutorial.md, made as it stands there: its saga goes on, its tests pass."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import processes

ROOT = processes.ROOT
PAGE = ROOT / "docs/tutorial.md"
PACKAGES = ("outbox", "brokers", "relay", "sagas", "saga_runtime")
FASTER = {"MAIL_SECONDS = 15": "MAIL_SECONDS = 1", '"SERVICE"': '"LEASE": 1.0, "SERVICE"'}


def files() -> dict[str, str]:
    """Return the files that the page has its reader write, by their paths."""
    found = re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', PAGE.read_text(), re.M | re.S)
    return dict(found)


class Project:
    """The tutorial's project in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "shop"
        self._env = {
            name: value
            for name, value in processes.environment(directory).items()
            if not name.startswith(("DJANGO_", "PYTEST_"))
        }
        self._run("-m", "django", "startproject", "shop", cwd=directory)
        for name in PACKAGES:
            shutil.copytree(ROOT / name, self._path / name)
        self.manage("startapp", "signup")
        for path, text in files().items():
            target = self._path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            before = target.read_text() if path == "shop/settings.py" else ""
            target.write_text(before + text)
        self.replace("shop/settings.py", FASTER)

    def replace(self, path: str, texts: dict[str, str]) -> None:
        target = self._path / path
        content = target.read_text()
        for old, new in texts.items():
            assert old in content
            content = content.replace(old, new)
        target.write_text(content)

    def manage(self, *arguments: str) -> str:
        done = self._run("manage.py", *arguments, cwd=self._path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def kill_while_it_sends(self, *arguments: str) -> None:
        command = [sys.executable, "manage.py", *arguments]
        with subprocess.Popen(
            command, cwd=self._path, env=self._env, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert any("sending a mail" in line for line in process.stdout)
            process.kill()

    def test(self) -> str:
        """Run the project's own tests; return what pytest prints."""
        return self._run("-m", "pytest", "-q", "-s", cwd=self._path).stdout

    def _run(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=cwd, env=self._env, capture_output=True, text=True, check=False
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_saga_goes_on_and_its_tests_pass(project: Project) -> None:
    project.manage("makemigrations", "signup")
    project.manage("migrate", "-v0")
    project.kill_while_it_sends("welcome", "C-2")
    assert re.search(r"send_mail +forward +started +1", project.manage("sagas", "show", "C-2"))
    assert "done: {'customer_id': 'C-2'" in project.manage("welcome", "C-2")
    attempts = project.manage("sagas", "show", "C-2")
    assert re.search(r"send_mail +forward +2 +done", attempts)
    assert not re.search(r"open_account +forward +2", attempts)

    tested = project.test()
    assert "2 passed" in tested, tested
    assert re.search(r"send_mail:F +- +- +ok +ok +ok", tested)

    project.replace(
        "signup/sagas.py",
        {
            "from sagaz import Saga": "import uuid\n\nfrom sagaz import Saga",
            "key=idempotency_key()": "key=uuid.uuid4()",
        },
    )
    tested = project.test()
    assert "1 failed, 1 passed" in tested, tested
    assert "mails is 2, expected 1" in tested
