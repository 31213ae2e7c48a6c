"""Reading what librdkafka says of itself now and then."""

from collections.abc import Mapping
from typing import Any

CONNECTED = ("UP", "UPDATE")


def is_connected(statistics: Mapping[str, Any]) -> bool:
    """Tell whether there is a connection to any broker."""
    return any(broker["state"] in CONNECTED for broker in statistics["brokers"].values())


def partition_counts(statistics: Mapping[str, Any]) -> dict[str, int]:
    """Count the partitions of each topic that the client has to do with: 0 where it is gone."""
    return {name: _count(topic) for name, topic in statistics["topics"].items()}


def _count(topic: Mapping[str, Any]) -> int:
    """-1 is librdkafka's own, and one that the group gave us stays there as unknown when it is
    gone."""
    partitions = topic["partitions"]
    return sum(int(number) >= 0 and not each["unknown"] for number, each in partitions.items())
