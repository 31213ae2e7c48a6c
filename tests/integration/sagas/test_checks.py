"""What `manage.py check` says about sagas, as a process."""

from pathlib import Path

from tests.processes import manage, refusal


class TestTheCommand:
    def test_warns_where_the_database_is_not_migrated(self, tmp_path: Path) -> None:
        checked = manage(tmp_path, "check", "--deploy", "--tag", "sagas", SECRET_KEY="for tests")
        assert checked.returncode == 0, checked.stderr
        assert "sagas.W001" in checked.stderr
        assert "no such table" in checked.stderr

    def test_refuses_a_saga_that_cannot_be_run_in_one_line(self, tmp_path: Path) -> None:
        app = tmp_path / "broken"
        app.mkdir()
        (app / "__init__.py").touch()
        (app / "sagas.py").write_text(
            "from sagaz import Saga, action\n\n"
            "class Lost(Saga):\n"
            "    @action('pay', depends_on=['reserve'])\n"
            "    def pay(self, ctx): ...\n"
        )
        (tmp_path / "broken_settings.py").write_text(
            "from config.settings import *\n\nINSTALLED_APPS = [*INSTALLED_APPS, 'broken']\n"
        )
        checked = manage(
            tmp_path,
            "check",
            DJANGO_SETTINGS_MODULE="broken_settings",
            PYTHONPATH=str(tmp_path),
            SECRET_KEY="for tests",
        )
        assert refusal(checked) == (
            "error: Lost.pay depends on 'reserve', which is none of its steps: pay"
        )
