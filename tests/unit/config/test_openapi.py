"""The OpenAPI document tells of every problem that a route answers."""

import json
from typing import Any

import pytest
from django.test import Client

from config.web.api import api
from tests.seed import ORDER

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stock")]

JSON = "application/json"
SCHEMA: dict[str, Any] = json.loads(json.dumps(api.get_openapi_schema()))


def documented(path: str, method: str) -> dict[str, Any]:
    found: dict[str, Any] = SCHEMA["paths"][path][method]["responses"]
    return found


def test_every_error_has_the_schema_of_a_problem() -> None:
    assert SCHEMA["components"]["schemas"]["Problem"]["required"]
    for path, operations in SCHEMA["paths"].items():
        for method in operations:
            errors = {s: r for s, r in documented(path, method).items() if int(s) >= 400}
            assert {"400", "500", "503"} <= set(errors)
            for response in errors.values():
                assert list(response["content"]) == ["application/problem+json"]


@pytest.mark.parametrize(
    ("method", "path", "route", "body", "content_type", "status"),
    [
        ("post", "/orders/", "/orders/", "{", JSON, 400),
        ("post", "/orders/", "/orders/", "{}", JSON, 422),
        ("post", "/orders/", "/orders/", "{}", "text/plain", 415),
        ("post", "/orders/", "/orders/", "x" * 1_048_577, JSON, 413),
        ("post", "/orders/", "/orders/", json.dumps(ORDER | {"amount": 1}), JSON, 409),
        ("get", "/orders/?limit=0", "/orders/", "", "", 422),
        ("get", "/orders/NONE/", "/orders/{order_id}/", "", "", 404),
        ("get", "/orders/NONE/diagram/", "/orders/{order_id}/diagram/", "", "", 404),
        ("post", "/orders/NONE/cancel/", "/orders/{order_id}/cancel/", "", "", 404),
        ("post", "/orders/ORD-001/cancel/", "/orders/{order_id}/cancel/", "[]", JSON, 422),
    ],
    ids=lambda value: str(value)[:80],
)
def test_what_is_answered_is_documented(
    client: Client, *, method: str, path: str, route: str, body: str, content_type: str, status: int
) -> None:
    client.post("/orders/", json.dumps(ORDER), JSON)
    answer = client.generic(method.upper(), path, body, content_type)

    assert answer.status_code == status
    assert str(status) in documented(route, method)


@pytest.mark.parametrize("accept", ["application/json", "text/vnd.mermaid"])
def test_a_diagram_varies_by_what_is_accepted(client: Client, accept: str) -> None:
    client.post("/orders/", json.dumps(ORDER), JSON)

    answer = client.get("/orders/ORD-001/diagram/", headers={"Accept": accept})
    assert answer["Vary"] == "Accept"
    assert answer["Content-Type"].startswith(accept)
