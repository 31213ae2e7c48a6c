"""Whatever DEFAULT_AUTO_FIELD a host project has, its `makemigrations` finds nothing to change."""

import sys
from pathlib import Path

import pytest

from tests import processes

OURS = ("config", "outbox", "relay", "sagas", "orders")
AUTO_FIELDS = (
    "",
    "DEFAULT_AUTO_FIELD = 'django.db.models.AutoField'",
    "DEFAULT_AUTO_FIELD = 'django.db.models.BigAutoField'",
)
SETTINGS = """
from config.settings import *
from config.settings import INSTALLED_APPS
del DEFAULT_AUTO_FIELD
INSTALLED_APPS = [*INSTALLED_APPS, "host"]
{auto_field}
"""
OF_THE_HOST = """
from django.db import models
class Thing(models.Model):
    pass
"""


@pytest.mark.parametrize("auto_field", AUTO_FIELDS)
def test_migrations_of_a_host_project_change_nothing_of_ours(
    auto_field: str, tmp_path: Path
) -> None:
    host = tmp_path / "host"
    host.mkdir()
    (host / "__init__.py").touch()
    (host / "models.py").write_text(OF_THE_HOST)
    (tmp_path / "host_settings.py").write_text(SETTINGS.format(auto_field=auto_field))
    code = (
        "import warnings; warnings.simplefilter('ignore');"
        "from django.core.management import execute_from_command_line as run;"
        f"run(['manage.py', 'makemigrations', *{OURS!r}, '--check', '--dry-run'])"
    )
    env = {
        "DJANGO_SETTINGS_MODULE": "host_settings",
        "PYTHONPATH": f"{tmp_path}:{processes.ROOT}",
    }
    done = processes.run(tmp_path, sys.executable, "-c", code, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("No changes detected")
