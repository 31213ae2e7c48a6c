"""Put the HTTP API together: health, orders, and every error as a problem."""

from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, InternalError, OperationalError
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from ninja.errors import HttpError, ValidationError

from config.version import version
from config.web import health
from config.web.openapi import ProblemApi
from config.web.origins import refuse_foreign_changes
from config.web.parsing import StrictJSONParser
from config.web.problems import body_too_big, database_unavailable, problem
from orders.api import router
from saga_runtime.problems import Problem

api = ProblemApi(
    title="django-saga-outbox",
    version=version(),
    urls_namespace="api",
    description="An order service that cannot lose an order.",
    docs_url="/api/docs",
    openapi_url="/api/openapi.json",
    parser=StrictJSONParser(),
)
api.add_decorator(refuse_foreign_changes, mode="view")  # before anything of the request is read
api.add_router("/orders", router)

_PARAMETER_PLACES = ("body", "query", "path", "header", "form")
_MAX_ERRORS = 20


@api.get("/health/", url_name="health", tags=["health"])
def get_health(request: HttpRequest) -> dict[str, str]:
    """Tell that this process answers."""
    return {"status": "healthy"}


@api.get(
    "/health/ready/",
    url_name="ready",
    tags=["health"],
    response=health.Readiness,
)
def get_ready(request: HttpRequest) -> health.Readiness | HttpResponse:
    """Tell whether orders can be taken, and are on their way.

    Checked are the database, its migrations, whether it takes writes, and the age of the outbox.
    503 names the reason and each check.
    """
    readiness = health.readiness()
    if readiness.status == "ready":
        return readiness
    return problem(503, readiness.detail, checks=readiness.dict()["checks"])


@api.exception_handler(Problem)
def _problem(request: HttpRequest, error: Problem) -> HttpResponse:
    """Answer with the problem that was raised."""
    return problem(error.status, error.detail, errors=error.errors)


@api.exception_handler(ValidationError)
def _invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    """Answer 422, with each field at fault."""
    errors = [{"field": _field(e["loc"]), "message": e["msg"]} for e in error.errors[:_MAX_ERRORS]]
    fields = ", ".join(dict.fromkeys(e["field"] for e in errors))
    return problem(422, f"not valid: {fields}", errors=errors)


@api.exception_handler(HttpError)
def _http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    """Answer an error of the framework; a problem raised by our parser is its cause."""
    if isinstance(error.__cause__, Problem):
        return _problem(request, error.__cause__)
    return problem(error.status_code, str(error))


@api.exception_handler(RequestDataTooBig)
def _too_big(request: HttpRequest, error: RequestDataTooBig) -> HttpResponse:
    return body_too_big()


@api.exception_handler(UnreadablePostError)
def _unreadable(request: HttpRequest, error: UnreadablePostError) -> HttpResponse:
    return problem(408, "the body did not arrive")


@api.exception_handler(OperationalError)
@api.exception_handler(InterfaceError)
@api.exception_handler(InternalError)
def _unavailable(request: HttpRequest, error: Exception) -> HttpResponse:
    return database_unavailable(error)


def _field(loc: tuple[Any, ...]) -> str:
    """Name a field as clients know it.

    Args:
        loc: where the framework saw it, as in `("body", "body", "items", 0, "id")`, the second part
            being our parameter's name.

    Returns:
        As in `items[0].id`; for a whole place its name, as in `body`.
    """
    parts = list(loc)
    place = str(parts[0]) if parts else ""
    if parts and parts[0] in _PARAMETER_PLACES:
        parts = parts[2:] if parts[0] == "body" else parts[1:]
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".") or place
