"""A small interface to message brokers: publish and subscribe. The URL chooses the broker."""

from brokers.base import (
    Acknowledged,
    Broker,
    Failed,
    Message,
    Publisher,
    Record,
    Refused,
    Report,
    Subscription,
)
from brokers.errors import BrokerConfigurationError, BrokerError, BrokerUnavailable, Fenced
from brokers.urls import broker_from_url, require_shared

__all__ = [
    "Acknowledged",
    "Broker",
    "BrokerConfigurationError",
    "BrokerError",
    "BrokerUnavailable",
    "Failed",
    "Fenced",
    "Message",
    "Publisher",
    "Record",
    "Refused",
    "Report",
    "Subscription",
    "broker_from_url",
    "require_shared",
]
