"""kafka:// by way of librdkafka (the package confluent-kafka), the extra `librdkafka`."""

from brokers.librdkafka.member import LibrdkafkaMember
from brokers.librdkafka.publisher import LibrdkafkaPublisher

__all__ = ["LibrdkafkaMember", "LibrdkafkaPublisher"]
