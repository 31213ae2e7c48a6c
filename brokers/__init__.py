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
    TransactionalPublisher,
)
from brokers.errors import (
    BrokerConfigurationError,
    BrokerError,
    BrokerUnavailable,
    Fenced,
    QueueFull,
)
from brokers.urls import broker_from_url, require_shared, require_transactions

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
    "QueueFull",
    "Record",
    "Refused",
    "Report",
    "Subscription",
    "TransactionalPublisher",
    "broker_from_url",
    "require_shared",
    "require_transactions",
]
