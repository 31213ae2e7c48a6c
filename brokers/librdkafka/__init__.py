"""kafka:// by way of librdkafka (the package confluent-kafka), the extra `librdkafka`."""

from brokers.librdkafka.publisher import LibrdkafkaPublisher
from brokers.librdkafka.subscription import LibrdkafkaSubscription

__all__ = ["LibrdkafkaPublisher", "LibrdkafkaSubscription"]
