"""A host project with our packages beside its apps: its own `manage.py test`, by Django's runner,
on PostgreSQL. The runner drops its database, which nobody may be connected to then."""

import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psycopg
import pytest

from tests import processes
from tests.e2e.service import until

pytestmark = [pytest.mark.postgres]

MANAGE = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
SETTINGS = """
SECRET_KEY = "only for tests"
INSTALLED_APPS = ["django.contrib.contenttypes", "outbox", "relay", "sagas", "shop"]
DATABASES = {{"default": {{
    "ENGINE": "django.db.backends.postgresql", "HOST": {host!r}, "PORT": {port}, "USER": {user!r},
    "PASSWORD": {password!r}, "NAME": {name!r}, "OPTIONS": {options!r},
}}}}
DATABASE_URL = ""
{said}
"""
NOW = 'SAGA_OUTBOX = {"SERVICE": "shop", "BROKER_URL": "memory://"}'
OF_THE_FIRST_RELEASE = """
DATABASE_DIRECT_URL = ""
SAGAZ = {"STORAGE_URL": "django://", "BROKER_URL": "memory://"}
BROKER_TOPICS = SAGA_TOPICS = ["shop.commands"]
BROKER_OPTIONS = {}
OUTBOX_SOURCE = SAGA_CONSUMER_GROUP = "shop"
OUTBOX_WAKE_UP = True
SAGA_LEASE, SAGA_MAX_TAKEOVERS = 10.0, 10
"""
MODELS = """
from django.db import models

class Customer(models.Model):
    name = models.CharField(max_length=20)
"""
SAGAS = """
from sagaz import Saga, action
from sagaz.core.triggers import trigger

class Welcome(Saga):
    saga_name = "welcome"

    @trigger(source="shop.welcome", idempotency_key="name")
    def on_welcome(self, event):
        return {"name": event["name"]}

    @action("open")
    def open(self, ctx):
        from shop.models import Customer
        Customer.objects.create(name=ctx["name"])

    @action("greet", depends_on=["open"])
    async def greet(self, ctx):
        return {"greeted": True}
"""
TESTS = """
from django.db import transaction
from django.test import TestCase, TransactionTestCase
from outbox import enqueue
from outbox.models import OutboxMessage
from sagas import run_saga_sync
from shop.models import Customer
from shop.sagas import Welcome

def put():
    with transaction.atomic():
        customer = Customer(name="A")
        enqueue(topic="t", key="K", type="x", payload=1, insert_first=[customer])

class InATransaction(TestCase):
    def test_enqueue(self):
        with self.captureOnCommitCallbacks(execute=True):
            put()
        self.assertEqual(OutboxMessage.objects.count(), 1)

class WithCommits(TransactionTestCase):
    def test_saga(self):
        run_saga_sync(Welcome, {"name": "B"}, timeout=120)
        self.assertEqual(Customer.objects.get().name, "B")

    def test_zz_enqueue(self):
        for _ in range(3):
            put()
        self.assertEqual(OutboxMessage.objects.count(), 3)
"""
POOL = {"min_size": 1, "max_size": 20}


WITHOUT_A_BROKER = 'SAGA_OUTBOX = {"SERVICE": "shop", "LEASE": 1.0}'
START = """
from django.db import transaction
import sagas
from shop.models import Customer
from shop.sagas import Welcome

for number in range(30):
    with transaction.atomic():
        sagas.start(Welcome, {"name": f"C-{number}"}, key=f"C-{number}")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shop = tmp_path / "shop"
    shop.mkdir()
    files = {"models": MODELS, "sagas": SAGAS, "tests": TESTS, "__init__": ""}
    for name, text in files.items():
        (shop / f"{name}.py").write_text(text)
    (tmp_path / "manage.py").write_text(MANAGE)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "said"),
    [({}, NOW), ({"pool": POOL}, OF_THE_FIRST_RELEASE)],
    ids=["no pool", "pool, names of the first release"],
)
def test_its_tests_pass_and_leave_no_database(
    options: dict[str, object], said: str, project: Path, postgres_database_url: str
) -> None:
    settings = settings_for(postgres_database_url, said, options)
    (project / "settings.py").write_text(settings)
    test = (sys.executable, "-W", "ignore::DeprecationWarning", "manage.py", "test", "--noinput")
    done = processes.run(project, *test, PYTHONPATH=str(processes.ROOT))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ran 3 tests" in done.stderr
    assert "Traceback" not in done.stderr
    with psycopg.connect(postgres_database_url) as connection:
        left = connection.execute(
            "SELECT count(*) FROM pg_database WHERE datname = %s",
            [f"test_{urlsplit(postgres_database_url).path.lstrip('/')}"],
        ).fetchone()
    assert left == (0,)


def settings_for(database_url: str, said: str, options: dict[str, object]) -> str:
    url = urlsplit(database_url)
    return SETTINGS.format(
        host=url.hostname,
        port=url.port or 5432,
        user=unquote(url.username or ""),
        password=unquote(url.password or ""),
        name=url.path.lstrip("/"),
        options=options,
        said=said,
    )


def test_its_sagas_need_no_broker_and_survive_their_worker(
    project: Path, postgres_database_url: str
) -> None:
    settings = settings_for(postgres_database_url, WITHOUT_A_BROKER, {})
    (project / "settings.py").write_text(settings)

    def command(*arguments: str) -> list[str]:
        return [sys.executable, "manage.py", *arguments]

    def manage(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return processes.run(project, *command(*arguments), PYTHONPATH=str(processes.ROOT))

    def ended() -> int:
        with psycopg.connect(postgres_database_url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM sagas_saga WHERE status = 'completed'"
            ).fetchone()
        assert row is not None
        return int(row[0])

    (project / "shop" / "migrations").mkdir()
    (project / "shop" / "migrations" / "__init__.py").touch()
    for step in (["makemigrations", "shop"], ["migrate"], ["shell", "-c", START]):
        done = manage(*step)
        assert done.returncode == 0, done.stderr
    refused = manage("run_saga_consumer")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    last = refused.stderr.splitlines()[-1]
    assert last.startswith('error: SAGA_OUTBOX needs the key "BROKER_URL": ')

    env = processes.environment(project) | {"PYTHONPATH": str(processes.ROOT)}
    for number in (signal.SIGKILL, signal.SIGTERM):
        with subprocess.Popen(
            command("run_saga_worker"), cwd=project, env=env, stdout=subprocess.PIPE, text=True
        ) as worker:
            assert worker.stdout is not None
            assert any(line == "worker: ready\n" for line in worker.stdout)
            until(ended, reaches=1 if number == signal.SIGKILL else 30, timeout=60)
            worker.send_signal(number)
            assert worker.wait(processes.TIMEOUT) == (-number if number == signal.SIGKILL else 0)
    with psycopg.connect(postgres_database_url) as connection:
        names = connection.execute("SELECT name FROM shop_customer").fetchall()
    assert sorted(names) == sorted((f"C-{number}",) for number in range(30))
