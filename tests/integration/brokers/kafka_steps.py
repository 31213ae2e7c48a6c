"""Do what tests of Kafka do again and again."""

import time
from collections.abc import Callable
from typing import Any

from kafka.admin import ConfigResource

from brokers import (
    BrokerUnavailable,
    Publisher,
    Record,
    Report,
    Subscription,
)
from brokers.kafka_broker import KafkaBroker
from brokers.kafka_python.server import admin_client, setting

PATIENCE = 120.0


def like(broker: KafkaBroker, **options: Any) -> KafkaBroker:
    """Make a broker that differs in these options."""
    return KafkaBroker(
        broker.address, partitions=broker.partitions, client=broker.client, **options
    )


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came true"


def collect(source: Publisher, count: int) -> list[Report]:
    reports: list[Report] = []

    def has_all() -> bool:
        reports.extend(source.reports(timeout=0.1))
        return len(reports) >= count

    until(has_all)
    return reports


def receive(source: Subscription, count: int) -> list[Record]:
    """Records, through whatever outage there is."""
    records: list[Record] = []

    def has_all() -> bool:
        try:
            records.extend(source.receive(timeout=0.2, limit=100))
        except BrokerUnavailable:
            time.sleep(0.1)
        return len(records) >= count

    until(has_all)
    return records


def is_unavailable(call: Callable[[], object]) -> bool:
    try:
        call()
    except BrokerUnavailable:
        return True
    return False


def set_limit(broker: KafkaBroker, topic: str, size: int) -> None:
    set_option(broker, topic, "max.message.bytes", str(size))


def set_option(broker: KafkaBroker, topic: str, name: str, value: str) -> None:
    with admin_client(broker.address, timeout=100) as admin:
        admin.alter_configs([ConfigResource("TOPIC", topic, {name: value})])
        until(lambda: setting(admin, "TOPIC", topic, name) == value)
