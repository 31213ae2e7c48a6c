"""Reach Kafka through librdkafka (the package confluent-kafka, the extra `librdkafka`).

Only `brokers.kafka_broker` may import this package, and only when this client is chosen. Code that
kafka-python needs as well belongs into `brokers.kafka`; nothing here may import
`brokers.kafka_python`.
"""

from brokers.librdkafka.member import LibrdkafkaMember
from brokers.librdkafka.publisher import LibrdkafkaPublisher

__all__ = ["LibrdkafkaMember", "LibrdkafkaPublisher"]
