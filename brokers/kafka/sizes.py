"""Hold the sizes and pauses of batches, the same with either client."""

LINGER_MS = 2
"""Milliseconds that a producer waits for more messages of a batch."""

BATCH_BYTES = 131_072
"""Bytes of a batch: well below a topic's default `max.message.bytes`."""

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""Bytes of a message that no broker is asked to take; below them the topic's limit decides."""

MAX_QUEUED_BYTES = 64 * 1024 * 1024
"""Bytes that a publisher queues by default before `publish()` raises `QueueFull`."""

RECONNECT_BACKOFF_MAX_MS = 1_000
"""Milliseconds of the longest pause between two attempts to connect."""
