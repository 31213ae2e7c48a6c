"""Hold the Kafka code that both clients share: addresses, error codes, topics, subscriptions.

`brokers.kafka_broker`, `brokers.kafka_python` and `brokers.librdkafka` may import this package.
It imports no Kafka client and none of the three, so that either client can be replaced.
"""
