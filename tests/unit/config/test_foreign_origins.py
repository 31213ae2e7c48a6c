"""A page of another site can have a browser send something here: it changes nothing."""

import json

import pytest
from django.test import Client
from pytest_django import Settings

from config.web.api import api
from orders.models import Order
from outbox.models import OutboxMessage
from tests.problems import assert_problem
from tests.seed import ORDER

pytestmark = pytest.mark.django_db

CANCEL = "/orders/ORD-001/cancel/"
FORMS = ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"]
FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://testserver.evil.example"},
    {"Origin": "http://testserver:8443"},
    {"Origin": "http://[bad"},
    {"Origin": "https://testserver"},
    {"Origin": "testserver"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]
OURS = [
    {"Origin": "http://testserver"},
    {"Origin": "http://TESTSERVER", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {},
]


@pytest.fixture(autouse=True)
def _placed(client: Client, stock: None) -> None:
    answer = client.post("/orders/", json.dumps(ORDER), "application/json")
    assert answer.status_code == 202


def commands() -> int:
    return OutboxMessage.objects.count()


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
@pytest.mark.parametrize("content_type", ["application/json", ""])
@pytest.mark.parametrize(("path", "body"), [(CANCEL, ""), ("/orders/", json.dumps(ORDER))])
def test_a_foreign_origin_is_refused(
    client: Client, path: str, body: str, content_type: str, headers: dict[str, str]
) -> None:
    assert_problem(client.post(path, body, content_type, headers=headers), 403)
    assert commands() == 1


@pytest.mark.parametrize("content_type", FORMS)
@pytest.mark.parametrize("headers", OURS, ids=str)
def test_a_form_is_refused_even_when_it_is_empty(
    client: Client, content_type: str, headers: dict[str, str]
) -> None:
    sent = headers | {"Content-Type": content_type}  # Django's client sends none with no body
    assert_problem(client.generic("POST", CANCEL, headers=sent), 415)
    assert commands() == 1


@pytest.mark.parametrize("headers", OURS, ids=str)
def test_our_own_pages_and_other_programs_are_served(
    client: Client, headers: dict[str, str]
) -> None:
    assert client.post(CANCEL, "", "", headers=headers).status_code == 202
    assert commands() == 2


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://shop.example", 202),
        ("https://a.sub.example", 202),
        ("http://shop.example", 403),
        ("http://a.sub.example", 403),
        ("https://sub.example.evil.example", 403),
    ],
)
def test_a_trusted_origin_is_ours_too(
    client: Client, settings: Settings, origin: str, status: int
) -> None:
    settings.CSRF_TRUSTED_ORIGINS = ["https://shop.example", "https://*.sub.example"]

    answer = client.post(CANCEL, "", "application/json", headers={"Origin": origin})
    assert answer.status_code == status


@pytest.mark.parametrize(("scheme", "status"), [("https", 202), ("http", 403)])
def test_behind_a_proxy_our_origin_is_the_one_that_the_browser_sees(
    client: Client, settings: Settings, scheme: str, status: int
) -> None:
    """As `BEHIND_TLS_PROXY=true` sets it."""
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    sent = {"Host": "testserver", "X-Forwarded-Proto": "https", "Origin": f"{scheme}://testserver"}
    answer = client.post(CANCEL, "", "application/json", headers=sent)
    assert answer.status_code == status


def test_reading_is_open_to_all(client: Client) -> None:
    for headers in FOREIGN:
        assert client.get("/orders/ORD-001/", headers=headers).status_code == 200
    assert Order.objects.count() == 1


def test_every_route_that_changes_something_is_guarded(client: Client) -> None:
    paths = api.get_openapi_schema()["paths"]
    changing = [(path, m) for path, methods in paths.items() for m in methods if m != "get"]
    assert len(changing) >= 2
    for path, method in changing:
        address = path.replace("{order_id}", "ORD-001")
        answer = client.generic(method.upper(), address, headers={"Origin": "https://evil.example"})
        assert_problem(answer, 403)
