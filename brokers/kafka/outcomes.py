"""Turn an error of Kafka into the report or the exception that callers of a broker know."""

from brokers.base import Failed, Refused
from brokers.errors import BrokerSlow, BrokerUnavailable, BrokerUnusable
from brokers.kafka.address import KafkaAddress
from brokers.kafka.faults import Fault

AFTER_A_FAILURE = "a message before it did not arrive"
"""Reason of a message that is not sent because an earlier failure has yet to be reported."""


def report_of(fault: Fault, token: int, reason: str) -> Refused | Failed:
    """Report a message that was sent alone as refused where the message is at fault, else failed.

    Args:
        fault: whose fault the error is.
        token: the message's token.
        reason: the error on one line.
    """
    if fault is Fault.MESSAGE:
        return Refused(token, reason)
    return Failed(token, reason, only_it=fault is Fault.TOPIC, lasting=fault is Fault.OURS)


def unavailable(address: KafkaAddress, fault: Fault, reason: str) -> BrokerUnavailable:
    """Make the exception for an error that a connected client met.

    Returns:
        `BrokerUnavailable` for an outage, `BrokerUnusable` for an error that time does not heal.
    """
    kind = BrokerUnavailable if fault is Fault.BROKER else BrokerUnusable
    return kind(f"Kafka at {address}: {reason}")


def no_answer(address: KafkaAddress, reason: str) -> BrokerUnavailable:
    """Make the exception for servers of which none answers."""
    return BrokerUnavailable(f"no Kafka broker answers at {address}: {reason}")


def late_answer(address: KafkaAddress, reason: str) -> BrokerSlow:
    """Make the exception for a server that answers some requests, and others not in time."""
    return BrokerSlow(f"a Kafka broker answers at {address}, but not in time: {reason}")
