"""Hold a module for each management command."""
