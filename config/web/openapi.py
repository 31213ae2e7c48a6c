"""Describe the API in OpenAPI, with the problems that every route can answer."""

from http import HTTPStatus
from typing import Any

from ninja import NinjaAPI
from ninja.openapi.schema import OpenAPISchema

from config.web.problems import CONTENT_TYPE

_PROBLEM = {
    "title": "Problem",
    "description": "Problem details (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status", "detail", "correlation_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "correlation_id": {"type": "string"},
        "errors": {
            "description": "The parts of the request that are at fault.",
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}
_ALWAYS = (400, 500, 503)  # 400: what is no HTTP, a wrong Host
_ON_CHANGES = (403, 408, 411, 413, 415)
_CONTENT = {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}


class ProblemApi(NinjaAPI):
    """Add to each route's own statuses those that all routes can answer."""

    def get_openapi_schema(self, **kwargs: Any) -> OpenAPISchema:
        """Build the document, with the schema of problems."""
        schema = super().get_openapi_schema(**kwargs)
        schema["components"]["schemas"]["Problem"] = _PROBLEM
        for path in schema["paths"].values():
            for method, operation in path.items():
                _document(method, operation)
        return schema


def _document(method: str, operation: dict[str, Any]) -> None:
    """Add the common error statuses to an operation, and the problem body to each error.

    Args:
        method: HTTP method in lower case.
        operation: its OpenAPI object, changed in place.
    """
    responses = operation["responses"]
    statuses = {*_ALWAYS, *(_ON_CHANGES if method != "get" else ())}
    if "requestBody" in operation or any(p["in"] == "query" for p in operation["parameters"]):
        statuses.add(422)
    statuses.update(status for status in responses if int(status) >= HTTPStatus.BAD_REQUEST)
    for status in sorted(statuses):
        described = {"description": HTTPStatus(status).phrase, "content": _CONTENT}
        responses.pop(status, None)
        responses[status] = described
