"""Move messages from the outbox to a broker, without loss and in each key's order.

`assembly` puts a relay together, `loop` runs the cycles, and `cycle` is the place to read first.
Only `store` and the modules `*_store` know the outbox's tables, but for the leases in `lanes`
and the housekeeping in `segments`. The relay knows no Kafka client and nothing of sagas.
"""
