"""Unit tests start no process. They run on SQLite, and those that use the database on PostgreSQL
too: see `tests/on_postgresql.py`."""

import pytest
from django.test import Client

from orders.sample_stock import load_sample_stock


@pytest.fixture(autouse=True)
def _no_wake_up(no_wake_up: None) -> None:
    """What enqueues wakes no relay."""


@pytest.fixture
def stock(db: None) -> None:
    """The sample products."""
    load_sample_stock()


@pytest.fixture
def client() -> Client:
    """A client to which an error is an answer, as it is to one on the network."""
    return Client(raise_request_exception=False)
