"""Hold the management commands of orders."""
