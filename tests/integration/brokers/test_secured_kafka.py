"""A Kafka that wants TLS and a password, as the URL says it."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from brokers import (
    Acknowledged,
    Broker,
    BrokerError,
    Message,
    broker_from_url,
)
from brokers.kafka.clients import CLIENTS
from tests.services import do_without, docker_answers, kafka_container
from tests.unit.waiting import until

pytestmark = pytest.mark.kafka

JAAS = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_alice="p@ss/word";'
SECURED = {
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:SASL_SSL,"
    "INTERNAL:PLAINTEXT",
    "KAFKA_SASL_ENABLED_MECHANISMS": "PLAIN",
    "KAFKA_LISTENER_NAME_PLAINTEXT_PLAIN_SASL_JAAS_CONFIG": JAAS,
    "KAFKA_SSL_KEYSTORE_TYPE": "PEM",
    "KAFKA_SSL_KEYSTORE_LOCATION": "/mnt/keystore.pem",
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that signs itself, for 127.0.0.1; its key is beside it."""
    if shutil.which("openssl") is None:
        do_without("needs openssl, to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    made = folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
         "-keyout", folder / "key.pem", "-out", made],
        check=True,
        capture_output=True,
    )  # fmt: skip
    keystore = folder / "keystore.pem"
    keystore.write_text((folder / "key.pem").read_text() + made.read_text())
    keystore.chmod(0o644)
    return made


@pytest.fixture(scope="module")
def secured_url(certificate: Path) -> Iterator[str]:
    if not docker_answers():
        do_without("needs Docker, for a Kafka with TLS")
    image = os.environ.get("KAFKA_IMAGE", "apache/kafka:4.1.0")
    url = f"kafka://alice:p%40ss%2Fword@{{}}?ssl_cafile={certificate}"
    mounts = {certificate.with_name("keystore.pem"): "/mnt/keystore.pem"}
    with kafka_container(image, url=url, mounts=mounts, **SECURED) as running:
        yield running


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def use(broker: Broker) -> None:
    """Publish one message, and receive it."""
    broker.check()
    topic = f"test-{uuid.uuid4().hex[:8]}"
    broker.ensure_topics([topic])
    with (
        closing(broker.publisher()) as publisher,
        closing(broker.subscribe([topic], group=topic)) as subscription,
    ):
        publisher.publish(Message(topic, "K", b"1"), token=1)
        until(lambda: publisher.reports(timeout=0.1) == [Acknowledged(1)])
        until(lambda: [r.value for r in subscription.receive(timeout=0.2, limit=9)] == [b"1"])


def test_both_clients_speak_to_it(secured_url: str, client: str) -> None:
    use(broker_from_url(secured_url, client=client))


def test_a_wrong_password_is_told_in_one_line(secured_url: str) -> None:
    with pytest.raises(BrokerError) as caught:
        broker_from_url(secured_url.replace("word", "world", 1)).check()
    assert "\n" not in str(caught.value)
    assert "world" not in str(caught.value)


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(secured_url: str) -> None:
    with pytest.raises(BrokerError):
        broker_from_url(secured_url.partition("?")[0]).check()
