"""The map of the repository in CONTRIBUTING.md, RELEASING.md and the templates leads somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("CONTRIBUTING.md", "RELEASING.md", "SECURITY.md", ".github/pull_request_template.md")
MADE = {"site/"}


@pytest.mark.parametrize("page", PAGES)
def test_each_path_is_there(page: str) -> None:
    named = set(re.findall(r"[`(]([\w./-]+(?:/|\.(?:py|md|yml|yaml|toml|sql)))[`#)]", _read(page)))
    assert {path for path in named - MADE if not (ROOT / path).exists()} == set()


def test_each_room_of_sagas_is_on_it() -> None:
    rooms = {path.parent.name for path in ROOT.glob("sagas/*/__init__.py")}
    for room in rooms - {"management", "migrations"}:
        assert f"`sagas/{room}/`" in _read("CONTRIBUTING.md")


def _read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")
