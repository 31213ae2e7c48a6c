"""Hold the management commands of the outbox."""
