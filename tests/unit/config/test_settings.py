"""Which settings there are, and what is made of them."""

import re

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from config import environment
from sagas.definition.sagaz_configuration import check_keys
from tests.processes import ROOT

PACKAGES = ("config", "orders", "outbox", "brokers", "relay", "sagas")
READS = r"""\benv(?:\.\w+)?\(\s*"([A-Z_]+)"|environ(?:\.get\(|\[)\s*"([A-Z_]+)\""""
# What `up` hands to its own processes, and what Django and Python read.
INTERNAL = {"SUPERVISED", "DJANGO_SETTINGS_MODULE", "PYTHONPATH"}


def variables_read() -> set[str]:
    sources = [path.read_text() for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    found = re.findall(READS, "".join(sources))
    return {name for names in found for name in names if name} - INTERNAL


def test_every_variable_is_documented() -> None:
    documented = set(re.findall(r"`([A-Z_]+)`", (ROOT / "docs/settings.md").read_text()))

    assert {"DATABASE_URL", "SECRET_KEY", "WEB_CONCURRENCY"} <= variables_read()
    assert variables_read() - documented == set()


def test_a_key_that_nothing_reads() -> None:
    check_keys(settings.SAGAZ)
    with pytest.raises(ImproperlyConfigured, match=r"the key 'METRIC', which nothing reads: use"):
        check_keys({"METRIC": True})


def test_migrate_may_go_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index may take its time."""
    monkeypatch.setenv("DATABASE_URL", "postgres://user@host/name")
    monkeypatch.setenv("DATABASE_STATEMENT_TIMEOUT", "0")
    config = environment.database(environment.Environment(), base_dir=ROOT)

    assert "-c statement_timeout=0 " in config["OPTIONS"]["options"]
