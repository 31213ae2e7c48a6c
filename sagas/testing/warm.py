"""Imported by the process that workers are forked from: it has Django set up and no connection, so
that a worker starts within milliseconds."""

from contextlib import suppress
from importlib import import_module

import django

with suppress(Exception):  # a worker meets the error again, and reports it
    django.setup()
    import_module("sagas.worker.executor")
