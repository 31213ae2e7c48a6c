"""Which Kafka client is chosen, and what librdkafka is told."""

import sys
from functools import partial
from typing import Any

import certifi
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, murmur2
from kafka.partitioner.default import murmur2 as murmur2_of_kafka_python

from brokers import BrokerConfigurationError, Failed, Refused, broker_from_url
from brokers.kafka import clients
from brokers.kafka.clients import CLIENTS, KAFKA_PYTHON, LIBRDKAFKA
from brokers.kafka.subscription import KafkaSubscription
from brokers.kafka_broker import KafkaBroker
from brokers.kafka_python.member import KafkaPythonMember
from brokers.kafka_python.publisher import KafkaPythonPublisher
from brokers.librdkafka import LibrdkafkaMember, LibrdkafkaPublisher
from brokers.librdkafka.connecting import connection_config, make_client
from brokers.librdkafka.faults import explain
from brokers.librdkafka.producer import LibrdkafkaProducer, producer_config
from saga_runtime import project_settings

USED_BY = {
    KAFKA_PYTHON: (KafkaPythonPublisher, KafkaPythonMember),
    LIBRDKAFKA: (LibrdkafkaPublisher, LibrdkafkaMember),
}


def kafka(url: str, **options: Any) -> KafkaBroker:
    broker = broker_from_url(url, **options)
    assert isinstance(broker, KafkaBroker)
    return broker


@pytest.fixture
def only_kafka_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)


class TestTheChoice:
    @pytest.mark.parametrize("client", CLIENTS)
    def test_a_client_can_be_forced(self, client: str) -> None:
        broker = kafka("kafka://one", client=client)
        publisher, member = USED_BY[client]
        assert isinstance(broker.publisher(), publisher)
        subscription = broker.subscribe(["a"], group="g")
        assert isinstance(subscription, KafkaSubscription)
        assert isinstance(subscription._join, partial)
        assert subscription._join.func is member

    def test_librdkafka_where_it_is_installed(self) -> None:
        assert kafka("kafka://one").client == LIBRDKAFKA

    @pytest.mark.usefixtures("only_kafka_python")
    def test_kafka_python_otherwise(self) -> None:
        assert kafka("kafka://one").client == KAFKA_PYTHON

    @pytest.mark.usefixtures("only_kafka_python")
    def test_one_that_is_not_installed(self) -> None:
        with pytest.raises(BrokerConfigurationError, match="uv sync --extra librdkafka") as caught:
            broker_from_url("kafka://one", client=LIBRDKAFKA)
        assert "\n" not in str(caught.value)

    def test_a_package_that_is_not_there(self) -> None:
        assert not clients._is_installed("there_is_no_such_package")

    @pytest.mark.parametrize("url", ["kafka://one", "memory://"])
    def test_an_unknown_one(self, url: str) -> None:
        with pytest.raises(BrokerConfigurationError) as caught:
            broker_from_url(url, client="sarama")
        assert str(caught.value) == (
            "there is no Kafka client 'sarama'; SAGAZ_KAFKA_CLIENT takes: kafka-python, librdkafka"
        )

    def test_the_settings_hand_it_on(self) -> None:
        assert "client" in project_settings.broker_options()
        broker_from_url("memory://", **project_settings.broker_options())

    def test_only_librdkafka_has_transactions(self) -> None:
        assert kafka("kafka://one", client=LIBRDKAFKA).has_transactions
        broker = kafka("kafka://one", client=KAFKA_PYTHON)
        assert not broker.has_transactions
        with pytest.raises(BrokerConfigurationError, match="need the Kafka client librdkafka"):
            broker.publisher(transactional_id="lane-1")


class TestWhatLibrdkafkaIsTold:
    def options_of(self, url: str) -> dict[str, str]:
        """The options of the URL, as librdkafka gets them."""
        config = connection_config(kafka(url).address)
        ours = connection_config(kafka("kafka://other").address)
        return {name: value for name, value in config.items() if ours.get(name) != value}

    def test_servers(self) -> None:
        assert self.options_of("kafka://one:1,two,[::1]:3") == {
            "bootstrap.servers": "one:1,two:9092,[::1]:3"
        }

    def test_without_credentials_nothing_is_secured(self) -> None:
        config = connection_config(kafka("kafka://one").address)
        assert config["security.protocol"] == "PLAINTEXT"
        assert not [name for name in config if name.startswith(("sasl", "ssl"))]

    def test_credentials_go_under_tls_by_default(self) -> None:
        assert self.options_of("kafka://al%3Aice:p%40ss@one") == {
            "bootstrap.servers": "one:9092",
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "al:ice",
            "sasl.password": "p@ss",
        }

    def test_every_option(self) -> None:
        cafile = certifi.where()
        query = "security_protocol=SASL_SSL&sasl_mechanism=SCRAM-SHA-512&client_id=shop&prefix=a."
        assert self.options_of(f"kafka://alice:secret@one?{query}&ssl_cafile={cafile}") == {
            "bootstrap.servers": "one:9092",
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "alice",
            "sasl.password": "secret",
            "ssl.ca.location": cafile,
            "client.id": "shop",
        }

    @pytest.mark.parametrize(
        "url",
        [
            "kafka://one",
            "kafka://one?security_protocol=SSL",
            "kafka://alice:secret@one",
            "kafka://alice:secret@one?sasl_mechanism=SCRAM-SHA-256",
            "kafka://alice:secret@one?sasl_mechanism=SCRAM-SHA-512&security_protocol=SASL_PLAINTEXT",
        ],
    )
    @pytest.mark.parametrize("factory", [Producer, Consumer])
    def test_it_takes_that(self, url: str, factory: Any) -> None:
        make_client(factory, kafka(url).address, {"group.id": "g"} if factory is Consumer else {})

    def test_what_it_does_not_take_is_said_on_one_line(self) -> None:
        address = kafka("kafka://alice:secret@one").address
        with pytest.raises(BrokerConfigurationError, match="librdkafka cannot be used") as caught:
            make_client(Producer, address, {"acks": "most"})
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)

    def test_a_producer_loses_and_reorders_nothing(self) -> None:
        config = producer_config(careful=False, transactional_id=None)
        assert config["acks"] == "all"
        assert config["enable.idempotence"]
        assert config["enable.gapless.guarantee"]
        assert config["message.timeout.ms"] == 0
        assert config["partitioner"] == "murmur2_random"
        make_client(Producer, kafka("kafka://one").address, config)

    def test_a_careful_producer_sends_each_message_alone(self) -> None:
        config = producer_config(careful=True, transactional_id=None)
        assert config["batch.num.messages"] == 1
        make_client(Producer, kafka("kafka://one").address, config)

    @pytest.mark.parametrize("key", ["", "key", "ключ", "ORD-001", "x" * 300])
    def test_both_put_a_key_into_the_same_partition(self, key: str) -> None:
        theirs = (murmur2_of_kafka_python(key.encode()) & 0x7FFFFFFF) % 12
        assert murmur2(key.encode(), 12) == theirs


class TestJudging:
    @pytest.fixture
    def producer(self) -> LibrdkafkaProducer:
        return LibrdkafkaProducer(kafka("kafka://127.0.0.1:1").address)

    @pytest.mark.parametrize(
        ("code", "alone", "outcome"),
        [
            (KafkaError.MSG_SIZE_TOO_LARGE, True, Refused),
            (KafkaError.MSG_SIZE_TOO_LARGE, False, Failed),
            (KafkaError.INVALID_RECORD, False, Failed),
            (KafkaError._UNKNOWN_TOPIC, False, Refused),
            (KafkaError.TOPIC_EXCEPTION, False, Refused),
            (KafkaError._PURGE_INFLIGHT, True, Failed),
            (KafkaError._GAPLESS_GUARANTEE, True, Failed),
            (KafkaError.TOPIC_AUTHORIZATION_FAILED, True, Failed),
            (KafkaError._TRANSPORT, True, Failed),
        ],
    )
    def test_an_error(
        self, producer: LibrdkafkaProducer, code: int, *, alone: bool, outcome: type
    ) -> None:
        report = producer.judge(1, KafkaError(code, "said so"), alone=alone)
        assert type(report) is outcome
        assert "said so" in report.reason

    def test_refused_in_company_makes_the_next_producer_careful(
        self, producer: LibrdkafkaProducer
    ) -> None:
        assert not producer.refused_in_company
        producer.judge(1, KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), alone=False)
        assert producer.refused_in_company

    def test_an_error_is_told_on_one_line(self) -> None:
        error = KafkaError(KafkaError._TRANSPORT, "two\nlines")
        assert explain(error) == "_TRANSPORT: two lines"
        assert explain(KafkaException(error)) == explain(error)
        assert explain(KafkaException("bare")) == "_FAIL: bare"
        assert explain(ValueError("two\nlines")) == "ValueError: two lines"
