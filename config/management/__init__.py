"""Hold the management commands of the service as a whole."""
