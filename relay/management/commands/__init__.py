"""Management commands of the relay."""
