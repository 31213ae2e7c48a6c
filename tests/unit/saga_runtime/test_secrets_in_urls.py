"""However badly a URL is quoted: no part of its user and password is printed."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from brokers import broker_from_url
from brokers.errors import BrokerError
from config import environment
from orders.payments.urls import gateway_from_url
from saga_runtime.urls import redacted
from sagas.definition.sagaz_configuration import check_storage_url
from sagas.worker.service import pool_size

SPECIAL = [*"/?#@:[]%$ \\&=;+\n\t", "://", "%2", "@@", "/@"]
PARTS = ("alice", "FIRST", "SECOND")
SHAPES = [
    "{scheme}://alice:FIRST{special}SECOND@host:5432/name",
    "{scheme}://alice:12{special}SECOND@host:5432/name",
    "{scheme}//alice:FIRST{special}SECOND@host/name",
    "alice:FIRST{special}SECOND@host:5432/name",
    "{scheme}:alice:FIRST{special}SECOND@host",
]


def database(url: str) -> str:
    env = environment.Environment()
    config = environment.database(env, base_dir=Path("/nowhere"))
    return "".join(str(config.get(name, "")) for name in ("HOST", "PORT", "NAME"))


def direct(_url: str) -> str:
    environment.direct_url(environment.Environment())
    return ""


def broker(url: str) -> str:
    return broker_from_url(url).name


def storage(url: str) -> str:
    check_storage_url({"STORAGE_URL": url}, database_url="")
    return ""


def gateway(url: str) -> str:
    return type(gateway_from_url(url)).__name__


READERS: list[tuple[str, Callable[[str], str], str]] = [
    ("DATABASE_URL", database, "postgres"),
    ("DATABASE_URL", database, "mysql"),
    ("DATABASE_DIRECT_URL", direct, "postgres"),
    ("SAGAZ_BROKER_URL", broker, "kafka"),
    ("SAGAZ_BROKER_URL", broker, "amqp"),
    ("SAGAZ_STORAGE_URL", storage, "redis"),
    ("PAYMENT_GATEWAY_URL", gateway, "stripe"),
    ("PAYMENT_GATEWAY_URL", gateway, "https"),
]


@pytest.mark.parametrize(("name", "read", "scheme"), READERS)
def test_nothing_of_them_is_printed(
    monkeypatch: pytest.MonkeyPatch, name: str, read: Callable[[str], str], scheme: str
) -> None:
    for shape, special in product(SHAPES, SPECIAL):
        url = shape.format(scheme=scheme, special=special)
        monkeypatch.setenv(name, url)
        try:
            shown = read(url)
        except (ImproperlyConfigured, BrokerError) as error:
            shown = str(error)
        assert not [part for part in PARTS if part in shown], (url, shown)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("kafka://user:password@broker:9092", "kafka://broker:9092"),
        ("kafka://broker:9092", "kafka://broker:9092"),
        ("user:pass://word@broker", "broker"),
        ("user:password@broker", "broker"),
        ("memory://", "memory://"),
    ],
)
def test_a_url_is_shown_without_them(url: str, shown: str) -> None:
    assert redacted(url) == shown


def test_a_key_that_begins_with_a_dollar_is_no_name_of_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET_KEY", "$ecret")

    assert environment.secret_key(environment.Environment(), tmp_path / "none") == "$ecret"


@pytest.mark.parametrize(
    ("pool", "size"),
    [
        (None, None),
        (False, None),
        ({}, None),
        (True, 4),
        ({"timeout": 5}, 4),
        ({"min_size": 20}, 20),
        ({"min_size": 20, "max_size": None}, 20),
        ({"min_size": 1, "max_size": 12}, 12),
    ],
)
def test_a_pool_without_a_limit_holds_its_minimum(pool: object, size: int | None) -> None:
    assert pool_size(pool) == size
