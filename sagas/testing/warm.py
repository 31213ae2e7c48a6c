"""Prepare the process from which workers are forked: each worker starts within milliseconds.

Django is set up in this process, and no connection is opened.
"""

from contextlib import suppress
from importlib import import_module

import django

with suppress(Exception):  # the worker meets the same error, and reports it
    django.setup()
    import_module("sagas.worker.executor")
