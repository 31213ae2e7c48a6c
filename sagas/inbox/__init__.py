"""Receive commands from the broker, and turn each into rows: a saga that starts, or a cancel.

A worker's process runs `SagaConsumer`; tests call `accepting.accept` with records. Nothing here
runs a step. Nothing here writes a table either: `accept` opens the transaction, and `sagas.journal`
writes the rows.
"""
