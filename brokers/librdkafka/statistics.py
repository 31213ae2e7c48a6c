"""Read the statistics that librdkafka reports about itself now and then."""

from collections.abc import Mapping
from typing import Any

CONNECTED = ("UP", "UPDATE")


def is_connected(statistics: Mapping[str, Any]) -> bool:
    """Tell whether there is a connection to any server."""
    return any(broker["state"] in CONNECTED for broker in statistics["brokers"].values())


def partition_counts(statistics: Mapping[str, Any]) -> dict[str, int]:
    """Count the partitions of each topic that the client uses; 0 for a topic that is gone."""
    return {name: _count(topic) for name, topic in statistics["topics"].items()}


def _count(topic: Mapping[str, Any]) -> int:
    """Count a topic's partitions on the servers.

    Partition -1 is librdkafka's own. A partition that the group has assigned stays in the
    statistics, marked as unknown, when it is gone.
    """
    partitions = topic["partitions"]
    return sum(int(number) >= 0 and not each["unknown"] for number, each in partitions.items())
