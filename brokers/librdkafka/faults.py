"""Tell whose fault an error of librdkafka is.

`brokers.kafka.faults` sorts the codes of Kafka's protocol; librdkafka's own codes are negative, and
are sorted here.
"""

from confluent_kafka import KafkaError, KafkaException

from brokers.errors import BrokerUnavailable
from brokers.kafka import outcomes
from brokers.kafka.address import KafkaAddress
from brokers.kafka.faults import Fault, fault_of_code, with_advice
from saga_runtime.text import error_text, one_line

_MESSAGE = frozenset(
    {
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 - librdkafka's own errors are named so
        KafkaError._INVALID_DIFFERENT_RECORD,  # noqa: SLF001
    }
)
_OURS = frozenset(
    {
        KafkaError._APPLICATION,  # noqa: SLF001
        KafkaError._AUTHENTICATION,  # noqa: SLF001
        KafkaError._BAD_COMPRESSION,  # noqa: SLF001
        KafkaError._BAD_MSG,  # noqa: SLF001
        KafkaError._CONFLICT,  # noqa: SLF001
        KafkaError._CRIT_SYS_RESOURCE,  # noqa: SLF001
        KafkaError._EXISTING_SUBSCRIPTION,  # noqa: SLF001
        KafkaError._FS,  # noqa: SLF001
        KafkaError._INVALID_ARG,  # noqa: SLF001
        KafkaError._INVALID_TYPE,  # noqa: SLF001
        KafkaError._KEY_DESERIALIZATION,  # noqa: SLF001
        KafkaError._KEY_SERIALIZATION,  # noqa: SLF001
        KafkaError._NOT_CONFIGURED,  # noqa: SLF001
        KafkaError._NOT_IMPLEMENTED,  # noqa: SLF001
        KafkaError._READ_ONLY,  # noqa: SLF001
        KafkaError._SSL,  # noqa: SLF001
        KafkaError._UNKNOWN_PROTOCOL,  # noqa: SLF001
        KafkaError._UNSUPPORTED_FEATURE,  # noqa: SLF001
        KafkaError._VALUE_DESERIALIZATION,  # noqa: SLF001
        KafkaError._VALUE_SERIALIZATION,  # noqa: SLF001
    }
)

# Refusals of a topic: only the message that asked for the topic is meant, not its whole batch.
TOPIC_REFUSED = frozenset(
    {
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_EXCEPTION,
    }
)

FENCED = frozenset(
    {
        KafkaError._FENCED,  # noqa: SLF001
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
    }
)


def fault_of(error: KafkaError) -> Fault:
    """Tell whose fault an error is that answers a message or a request."""
    code = error.code()
    if code >= KafkaError.UNKNOWN:
        return fault_of_code(code)
    if code in _MESSAGE:
        return Fault.MESSAGE
    return Fault.OURS if code in _OURS else Fault.BROKER


def kafka_error(exception: KafkaException) -> KafkaError:
    """Return the error inside an exception; where there is none, an error with the same text."""
    found = exception.args[0] if exception.args else None
    return found if isinstance(found, KafkaError) else KafkaError(KafkaError._FAIL, str(exception))  # noqa: SLF001


def explain(error: BaseException | KafkaError) -> str:
    """Describe an error on one line: its name, its text, and advice where there is some."""
    if isinstance(error, KafkaException):
        error = kafka_error(error)
    if isinstance(error, KafkaError):
        return with_advice(error.code(), one_line(f"{error.name()}: {error.str()}"))
    return one_line(f"{type(error).__name__}: {error_text(error)}")


def unavailable(address: KafkaAddress, error: KafkaError) -> BrokerUnavailable:
    """Make the exception for an error that a connected client met."""
    return outcomes.unavailable(address, fault_of(error), explain(error))
