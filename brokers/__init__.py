"""Publish to and subscribe at message brokers; `broker_from_url()` chooses the broker.

Relay, consumers and commands import the names below, `brokers.cloudevents` and, in tests,
`brokers.memory`; the other modules are for this package alone. Nothing here knows the outbox, sagas
or Django's models: a broker moves bytes with a key, and reports what became of them.
"""

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
