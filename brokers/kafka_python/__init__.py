"""Reach Kafka through kafka-python: publishers, group members, and questions about the server.

Only `brokers.kafka_broker` may import this package. Code that librdkafka needs as well belongs
into `brokers.kafka`; nothing here may import `brokers.librdkafka`.
"""
