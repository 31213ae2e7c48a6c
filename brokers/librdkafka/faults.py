"""Whose fault an error of librdkafka is: Kafka's codes as `brokers.kafka.faults` sorts them, and
librdkafka's own, which are negative."""

from confluent_kafka import KafkaError, KafkaException

from brokers.kafka.faults import Fault, advised, fault_of
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

# Refusals of a topic: whichever message asked for it, they are about no other one of its batch.
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


def fault(error: KafkaError) -> Fault:
    """Tell whose fault an error is, which answers a message or a request."""
    code = error.code()
    if code >= KafkaError.UNKNOWN:
        return fault_of(code)
    if code in _MESSAGE:
        return Fault.MESSAGE
    return Fault.OURS if code in _OURS else Fault.BROKER


def error_of(exception: KafkaException) -> KafkaError:
    """What is inside an exception; there is one where librdkafka raised it."""
    found = exception.args[0] if exception.args else None
    return found if isinstance(found, KafkaError) else KafkaError(KafkaError._FAIL, str(exception))  # noqa: SLF001


def explained(error: BaseException | KafkaError) -> str:
    """The error on one line, with its name, and with what to do where that is known."""
    if isinstance(error, KafkaException):
        error = error_of(error)
    if isinstance(error, KafkaError):
        return advised(error.code(), one_line(f"{error.name()}: {error.str()}"))
    return one_line(f"{type(error).__name__}: {error_text(error)}")
