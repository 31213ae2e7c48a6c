"""Prepare the process that workers are forked from, so that each starts within milliseconds.

That process sets Django up, and opens no connection.
"""

from contextlib import suppress
from importlib import import_module

import django

with suppress(Exception):  # the worker meets the same error, and reports it
    django.setup()
    import_module("sagas.worker.executor")
