"""Which broker a URL names, and what is said about one that cannot be used."""

import sys
from pathlib import Path
from typing import Any

import certifi
import pytest

from brokers import BrokerConfigurationError, broker_from_url
from brokers.kafka.clients import CLIENTS
from brokers.kafka_broker import KafkaBroker
from saga_runtime.urls import redacted


def kafka(url: str, **options: Any) -> KafkaBroker:
    broker = broker_from_url(url, **options)
    assert isinstance(broker, KafkaBroker)
    return broker


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("kafka://one:9092", ("one:9092",)),
        ("kafka://one:9092,two:9093,three:9094", ("one:9092", "two:9093", "three:9094")),
        ("kafka://one,two:1", ("one:9092", "two:1")),
        ("kafka://127.0.0.1:29092/", ("127.0.0.1:29092",)),
        ("kafka://[::1]:9092,[fe80::1]", ("[::1]:9092", "[fe80::1]:9092")),
        ("kafka://user:password@one:1,two:2", ("one:1", "two:2")),
    ],
)
def test_the_servers(url: str, servers: tuple[str, ...]) -> None:
    broker = kafka(url)
    assert broker.address.servers == servers
    assert not broker.in_process


def test_the_shape_of_topics() -> None:
    assert (kafka("kafka://one").partitions, kafka("kafka://one").replication_factor) == (12, 1)
    broker = kafka("kafka://one", partitions=6, replication_factor=3)
    assert (broker.partitions, broker.replication_factor) == (6, 3)


def test_without_credentials_nothing_is_secured() -> None:
    assert kafka("kafka://one").address.options == {"security_protocol": "PLAINTEXT"}


def test_credentials_go_under_tls_by_default() -> None:
    assert kafka("kafka://al%3Aice:p%40ss%2Fword@one").address.options == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "al:ice",
        "sasl_plain_password": "p@ss/word",
    }


def test_options() -> None:
    cafile = certifi.where()
    query = "security_protocol=SASL_PLAINTEXT&sasl_mechanism=SCRAM-SHA-512&client_id=shop"
    broker = kafka(f"kafka://alice:secret@one?{query}&ssl_cafile={cafile}")
    assert broker.address.options == {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "client_id": "shop",
        "ssl_cafile": cafile,
        "sasl_plain_username": "alice",
        "sasl_plain_password": "secret",
    }


def test_a_prefix_is_not_for_the_client() -> None:
    address = kafka("kafka://one?prefix=staging.").address
    assert address.options == {"security_protocol": "PLAINTEXT"}
    assert address.named("orders.commands") == "staging.orders.commands"


@pytest.mark.parametrize("text", ["{}", "{0.address}", "{0.address!r}", "{0.name}"])
def test_a_password_is_never_shown(text: str) -> None:
    assert "secret" not in text.format(kafka("kafka://alice:secret@one:9092"))
    assert redacted("kafka://alice:s@cret@one:9092") == "kafka://one:9092"


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "unknown scheme"),
        ("nats://one", "unknown scheme; use one of: memory://, kafka://"),
        ("kafka://[::1", "is not host:port"),
        ("kafka://", "not host:port"),
        ("kafka://one,,two", "not host:port"),
        ("kafka://:9092", "not host:port"),
        ("kafka://::1", "not host:port"),
        ("kafka://one:", "no usable port"),
        ("kafka://one:http", "no usable port"),
        ("kafka://one:0", "no usable port"),
        ("kafka://one:65536", "no usable port"),
        ("kafka://one:٣", "no usable port"),
        ("kafka://one/orders", "takes no path"),
        ("kafka://one?acks=0&retries=1", "no option acks, retries; it has: security_protocol"),
        ("kafka://one?security_protocol=TLS", "security_protocol=TLS; it takes: PLAINTEXT, SSL"),
        ("kafka://one?client_id=", "client_id=; it takes: a value"),
        ("kafka://one?prefix=my/shop", "prefix=my/shop; it takes up to 64 letters, digits"),
        ("kafka://one?security_protocol=SASL_SSL", "also needs user:password@"),
        ("kafka://al:secret@one?security_protocol=SSL", "also needs a security_protocol with SASL"),
        ("kafka://al:secret@one?ssl_cafile=/nowhere/ca.pem", "no ssl_cafile /nowhere/ca.pem"),
        ("kafka://al:secret@one:x", "no usable port"),
    ],
)
def test_a_url_that_cannot_be_used(url: str, complaint: str) -> None:
    with pytest.raises(BrokerConfigurationError) as caught:
        broker_from_url(url)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("client", CLIENTS)
def test_certificates_that_are_none(tmp_path: Path, client: str) -> None:
    cafile = tmp_path / "ca.pem"
    cafile.write_text("no certificate")
    with pytest.raises(BrokerConfigurationError, match=r"ca\.pem holds no certificate") as caught:
        kafka(f"kafka://alice:secret@one?ssl_cafile={cafile}", client=client)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("brokers.kafka")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kafka", None)
    with pytest.raises(BrokerConfigurationError, match="needs the package kafka-python"):
        broker_from_url("kafka://one:9092")
