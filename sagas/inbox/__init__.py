"""Take commands from the broker and make them rows: a saga that starts, or a cancel.

The worker's process runs `SagaConsumer`; a test, or a program with records of its own, calls
`accepting.accept`. Nothing here runs a step, and nothing here writes a table itself: the rows are
written by `sagas.journal`, in the transaction that `accept` opens.
"""
