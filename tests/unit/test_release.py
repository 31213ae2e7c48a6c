"""The version stands in one place, and the changelog knows it."""

import re
import tomllib
from pathlib import Path

from django.test import Client

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_api_tells_the_version_of_the_release(client: Client) -> None:
    assert client.get("/api/openapi.json").json()["info"]["version"] == VERSION


def test_the_changelog_begins_with_what_is_unreleased_and_this_version() -> None:
    found = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert found[0] == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(VERSION)}\] - \d{{4}}-\d\d-\d\d", found[1])
