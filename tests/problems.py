"""Every error is a problem (RFC 9457)."""

import json
from typing import Any


def assert_problem(response: Any, status: int, field: str | None = None) -> dict[str, Any]:
    """`response`: Django's or one of requests. Returns the body."""
    assert response.status_code == status, response.content[:500]
    assert response.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = json.loads(response.content)
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body["correlation_id"] == response.headers["X-Correlation-ID"]
    if field is not None:
        assert field in [error["field"] for error in body["errors"]]
    return body
