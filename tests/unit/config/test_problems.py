"""Every error, on every kind of route, is a problem."""

from typing import NoReturn

import pytest
from django.core.exceptions import PermissionDenied
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, UnreadablePostError
from django.test import Client
from pytest_django import Settings

from orders.models import Order
from tests import seed
from tests.problems import assert_problem

pytestmark = pytest.mark.django_db

ROUTES = ["/", "/orders/", "/orders/ORD-001/", "/health/", "/api/docs", "/admin/login/", "/nowhere"]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> "Breaker":
    return Breaker(monkeypatch)


class Breaker:
    """Makes what a route calls raise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def route(self, path: str, error: Exception) -> None:
        def fail(*_: object, **__: object) -> NoReturn:
            raise error

        target = {
            "/": "config.web.home.render",
            "/orders/": "orders.api.Order.objects.newest_first",
            "/orders/ORD-001/": "orders.api._find_order",
            "/health/ready/": "config.web.health.readiness",
            "/admin/login/": "django.contrib.admin.sites.AdminSite.each_context",
        }[path]
        self._monkeypatch.setattr(target, fail)


BREAKABLE = ["/", "/orders/", "/orders/ORD-001/", "/health/ready/", "/admin/login/"]


@pytest.mark.parametrize(
    "path", ["/nowhere", "/orders/a/b/", "/static/none.css", "/admin/nothing/", "/api/", "/\ud7ff"]
)
def test_404(client: Client, admin_client: Client, path: str) -> None:
    assert_problem(admin_client.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("delete", "/orders/", "POST"),
        ("put", "/orders/ORD-001/", "GET"),
        ("post", "/orders/ORD-001/diagram/", "GET"),
        ("post", "/health/", "GET"),
        ("post", "/health/ready/", "GET"),
        ("post", "/", "GET"),
    ],
)
def test_405_says_what_is_allowed(client: Client, method: str, path: str, allowed: str) -> None:
    response = getattr(client, method)(path)

    assert_problem(response, 405)
    assert allowed in response["Allow"]


@pytest.mark.parametrize("path", ROUTES)
def test_a_bad_host(client: Client, path: str) -> None:
    problem = assert_problem(client.get(path, headers={"host": "evil.example"}), 400)
    assert "evil.example" in problem["detail"]


@pytest.mark.parametrize("path", BREAKABLE)
def test_500_says_nothing_of_its_cause(client: Client, broken: Breaker, path: str) -> None:
    broken.route(path, RuntimeError("the secret is sesame"))

    response = client.get(path)
    assert_problem(response, 500)
    assert b"sesame" not in response.content


@pytest.mark.parametrize("path", BREAKABLE)
@pytest.mark.parametrize("error", [OperationalError("host db.internal"), InterfaceError("closed")])
def test_503_where_the_database_is_away(
    client: Client, broken: Breaker, path: str, error: Exception
) -> None:
    broken.route(path, error)

    response = client.get(path)
    assert_problem(response, 503)
    assert int(response["Retry-After"]) > 0
    assert b"internal" not in response.content


def test_an_order_is_refused_while_the_database_is_away(
    client: Client, stock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> NoReturn:
        raise OperationalError("no connection")

    monkeypatch.setattr("orders.services.enqueue", fail)

    assert_problem(client.post("/orders/", seed.ORDER, content_type="application/json"), 503)
    assert Order.objects.count() == 0


def test_403(client: Client, broken: Breaker) -> None:
    broken.route("/", PermissionDenied("not for you"))

    assert assert_problem(client.get("/"), 403)["detail"] == "not for you"


def test_a_forged_form_is_refused_as_a_problem() -> None:
    client = Client(enforce_csrf_checks=True)

    assert_problem(client.post("/admin/login/", {"username": "admin", "password": "?"}), 403)


@pytest.mark.parametrize(
    ("path", "content_type"),
    [("/orders/", "application/json"), ("/admin/login/", "application/x-www-form-urlencoded")],
)
def test_413(client: Client, path: str, content_type: str) -> None:
    assert_problem(client.post(path, b"x" * 1_048_577, content_type=content_type), 413)


@pytest.mark.parametrize("path", ROUTES)
def test_411(client: Client, path: str) -> None:
    assert_problem(client.post(path, headers={"transfer-encoding": "chunked"}), 411)


def test_408_where_the_body_stops_coming(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def stall(_request: HttpRequest) -> NoReturn:
        raise UnreadablePostError("timed out")

    monkeypatch.setattr("django.core.handlers.wsgi.WSGIRequest.body", property(stall))

    assert_problem(client.post("/orders/", b"{", content_type="application/json"), 408)


@pytest.mark.parametrize("path", ["/", "/orders/", "/nowhere"])
def test_every_answer_has_a_correlation_id_of_its_own(client: Client, path: str) -> None:
    first, second = client.get(path), client.get(path)

    assert first["X-Correlation-ID"] != second["X-Correlation-ID"]
    assert first["traceparent"] != second["traceparent"]


def test_while_developing_django_shows_its_own_page(
    client: Client, broken: Breaker, settings: Settings
) -> None:
    settings.DEBUG = True
    broken.route("/", RuntimeError("shown"))

    response = client.get("/")
    assert response.status_code == 500
    assert b"shown" in response.content
