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
    BrokerSlow,
    BrokerUnavailable,
    BrokerUnusable,
    Fenced,
    QueueFull,
)
from brokers.starting import await_broker
from brokers.urls import broker_from_url, require_shared, require_transactions

__all__ = [
    "Acknowledged",
    "Broker",
    "BrokerConfigurationError",
    "BrokerError",
    "BrokerSlow",
    "BrokerUnavailable",
    "BrokerUnusable",
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
    "await_broker",
    "broker_from_url",
    "require_shared",
    "require_transactions",
]
