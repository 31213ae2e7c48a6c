#!/usr/bin/env python
"""Run a management command; a user's mistake ends in one line, not in a traceback."""

import os
import sys


def main() -> None:
    """Run the command in `sys.argv`."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.management import execute_from_command_line

    from config.serving.failures import describe_failure

    try:
        execute_from_command_line(sys.argv)
    except Exception as error:
        line = describe_failure(error)
        if line is None:
            raise
        sys.exit(f"error: {line}")


if __name__ == "__main__":
    main()
