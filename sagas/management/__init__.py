"""Hold the management commands: arguments, wiring and output; the work is in the other rooms."""
