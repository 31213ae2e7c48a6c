"""Every error code of Kafka, as both clients know it, is sorted, and sorted alike."""

import inspect
import logging

import pytest
from confluent_kafka import KafkaError
from kafka import errors

from brokers import BrokerUnavailable, BrokerUnusable, Failed, Refused, broker_from_url
from brokers.kafka.faults import INVALID_TIMESTAMP, Fault, fault_of_code, known_codes
from brokers.kafka_broker import KafkaBroker
from brokers.kafka_python import faults as kafka_python_faults
from brokers.kafka_python.producer import judge
from brokers.librdkafka.faults import explain, fault_of
from brokers.librdkafka.producer import LibrdkafkaProducer
from saga_runtime.outage import Outage

OF_KAFKA_PYTHON = {
    each.errno: each
    for each in vars(errors).values()
    if inspect.isclass(each)
    and issubclass(each, errors.BrokerResponseError)
    and each.errno is not None
}
OF_LIBRDKAFKA = {
    number: name
    for name in dir(KafkaError)
    if isinstance(number := getattr(KafkaError, name), int) and not name.startswith("__")
}
SHARED = sorted(code for code in OF_LIBRDKAFKA if code >= -1)


@pytest.fixture(scope="module")
def producer() -> LibrdkafkaProducer:
    broker = broker_from_url("kafka://127.0.0.1:1")
    assert isinstance(broker, KafkaBroker)
    return LibrdkafkaProducer(broker.address)


def test_every_code_of_both_clients_is_sorted() -> None:
    assert set(OF_KAFKA_PYTHON) <= known_codes()
    assert set(SHARED) <= known_codes()


def test_a_code_that_is_newer_than_the_table_parks_nothing_and_is_no_outage() -> None:
    assert fault_of_code(31_999) is Fault.OURS


@pytest.mark.parametrize("code", sorted({*OF_KAFKA_PYTHON, *SHARED} - {0}))
def test_both_clients_judge_alike(producer: LibrdkafkaProducer, code: int) -> None:
    """A message that was sent alone."""
    by_librdkafka = producer.judge(1, KafkaError(code), alone=True)
    by_kafka_python = judge(1, OF_KAFKA_PYTHON.get(code, errors.for_code(code))())
    if code not in OF_KAFKA_PYTHON:  # it knows no such error: nothing is parked for it
        assert isinstance(by_kafka_python, Failed)
        return
    assert type(by_librdkafka) is type(by_kafka_python)
    if isinstance(by_librdkafka, Failed) and isinstance(by_kafka_python, Failed):
        assert by_librdkafka.only_it == by_kafka_python.only_it
        assert by_librdkafka.lasting == by_kafka_python.lasting
    assert isinstance(by_librdkafka, Refused) == (fault_of_code(code) is Fault.MESSAGE)


def test_what_is_the_messages_fault_is_little() -> None:
    """Only these park: a key that is parked by mistake stands still."""
    assert {code for code in known_codes() if fault_of_code(code) is Fault.MESSAGE} == {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.POLICY_VIOLATION,
        KafkaError.INVALID_RECORD,
    }


@pytest.mark.parametrize("code", sorted(set(OF_LIBRDKAFKA) - set(SHARED)))
def test_librdkafkas_own_errors_park_only_where_it_judged_the_message(code: int) -> None:
    judged = {KafkaError._UNKNOWN_TOPIC, KafkaError._INVALID_DIFFERENT_RECORD}
    assert (fault_of(KafkaError(code)) is Fault.MESSAGE) == (code in judged)


@pytest.mark.parametrize(
    ("error", "whose"),
    [
        (errors.UnsupportedCodecError("no zstd"), Fault.OURS),
        (errors.KafkaTimeoutError(), Fault.BROKER),
        (errors.KafkaConnectionError(), Fault.BROKER),
        (OSError("gone"), Fault.BROKER),
        (ValueError("not a key"), Fault.MESSAGE),
    ],
)
def test_kafka_pythons_own_errors(error: Exception, whose: Fault) -> None:
    assert kafka_python_faults.fault_of(error) is whose


def test_a_wrong_clock_is_named_by_both() -> None:
    by_librdkafka = explain(KafkaError(INVALID_TIMESTAMP))
    by_kafka_python = kafka_python_faults.explain(errors.InvalidTimestampError())
    for text in (by_librdkafka, by_kafka_python):
        assert text.endswith("(an hour ahead, by default): set the clock")
        assert "\n" not in text


class TestOutage:
    def test_what_time_does_not_heal_is_never_called_an_outage(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        outage = Outage("the broker k", logger=logging.getLogger("test"))
        outage.failed(BrokerUnusable("set\nthe clock"))
        outage.over()
        assert [record.getMessage() for record in caplog.records] == [
            "the broker k answers, but cannot be used like this, trying on: set the clock",
            "the broker k can be used again after 0.0 s",
        ]
        assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
        assert outage.count == 0

    def test_one_may_follow_the_other(self, caplog: pytest.LogCaptureFixture) -> None:
        """Neither hides behind the ten seconds between two lines about the other."""
        outage = Outage("the broker k", logger=logging.getLogger("test"))
        outage.failed(BrokerUnavailable("gone"))
        outage.failed(BrokerUnavailable("gone"))
        outage.failed("set the clock", answers=True)
        assert [record.getMessage() for record in caplog.records] == [
            "the broker k does not answer, trying on: gone",
            "the broker k answers, but cannot be used like this, trying on: set the clock",
        ]
        assert outage.count == 1
