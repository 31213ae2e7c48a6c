"""Tell kafka-python's errors apart: whose fault an error is, and what a caller should see."""

import re

from kafka import errors

from brokers.errors import (
    BrokerConfigurationError,
    BrokerError,
    BrokerUnavailable,
    BrokerUnusable,
)
from brokers.kafka import outcomes
from brokers.kafka.address import KafkaAddress
from brokers.kafka.faults import Fault, fault_of_code, with_advice
from saga_runtime.text import error_text, one_line

# kafka-python's own event loop also raises RuntimeError and OSError once it is closed or has died.
CLIENT_ERRORS = (errors.KafkaError, RuntimeError, OSError)

CREDENTIALS_REFUSED = (
    errors.SaslAuthenticationFailedError,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
    errors.AuthorizationError,
    errors.KafkaConfigurationError,
)

# Errors of kafka-python's own, without a code, that time does not heal.
_LASTING = (
    errors.AuthorizationError,
    errors.IllegalArgumentError,
    errors.IllegalStateError,
    errors.KafkaConfigurationError,
    errors.QuotaViolationError,
    errors.UnrecognizedBrokerVersion,
    errors.UnsupportedCodecError,
)

_LATE = (errors.KafkaTimeoutError, errors.RequestTimedOutError)


def fault_of(error: BaseException) -> Fault:
    """Tell whose fault an error is that answers a message or a request."""
    if isinstance(error, errors.BrokerResponseError) and error.errno is not None:
        return fault_of_code(error.errno)
    if isinstance(error, (TypeError, ValueError)):  # the message could not be written
        return Fault.MESSAGE
    return Fault.OURS if isinstance(error, _LASTING) else Fault.BROKER


def explain(error: BaseException) -> str:
    """Describe an error on one line: its name, its text, and advice where there is some."""
    name = type(error).__name__
    text = re.sub(rf"^(\[Error -?\d+\] )?({name}(: )?)?", "", one_line(error_text(error)))
    explained = f"{name}: {text}" if text else name
    if isinstance(error, errors.UnsupportedCodecError):
        return f"{explained}: install kafka-python[lz4,snappy,zstd]"
    return with_advice(getattr(error, "errno", None) or 0, explained)


def unavailable(address: KafkaAddress, error: Exception) -> BrokerUnavailable:
    """Make the exception for an error that a connected client raised."""
    return outcomes.unavailable(address, fault_of(error), explain(error))


def connection_error(
    address: KafkaAddress, error: Exception, *, answered: bool = False
) -> BrokerError:
    """Make the exception for an error met while connecting or asking.

    Args:
        address: where the servers are.
        error: what the client raised.
        answered: a server has answered another request before.
    """
    if isinstance(error, CREDENTIALS_REFUSED):
        return BrokerConfigurationError(f"Kafka at {address} does not let us in: {explain(error)}")
    if isinstance(error, errors.KafkaError) and fault_of(error) is not Fault.BROKER:
        return BrokerUnusable(f"Kafka at {address} answers, and says: {explain(error)}")
    if answered and isinstance(error, _LATE):
        return outcomes.late_answer(address, explain(error))
    return outcomes.no_answer(address, explain(error))
