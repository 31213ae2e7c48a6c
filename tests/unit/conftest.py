import pytest
from django.conf import settings
from django.test import Client

from orders.stock import load_sample_stock


@pytest.fixture(autouse=True, scope="session")
def _secret_key() -> None:
    """Requests want one, and a fresh checkout has none."""
    settings.SECRET_KEY = "only for tests"


@pytest.fixture
def stock(db: None) -> None:
    """The sample products."""
    load_sample_stock()


@pytest.fixture
def client() -> Client:
    """A client to which an error is an answer, as it is to one on the network."""
    return Client(raise_request_exception=False)
