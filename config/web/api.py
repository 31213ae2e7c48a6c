"""The HTTP API: health here, orders from their app, every error a problem."""

from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, InternalError, OperationalError
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from ninja.errors import HttpError, ValidationError

from config.version import version
from config.web import health
from config.web.openapi import ProblemApi
from config.web.origins import guarded
from config.web.parsing import StrictJSONParser
from config.web.problems import problem, too_big, unavailable
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
api.add_decorator(guarded, mode="view")  # before anything of the request is read
api.add_router("/orders", router)

_PARAMETER_PLACES = ("body", "query", "path", "header", "form")
_MAX_ERRORS = 20


@api.get("/health/", url_name="health", tags=["health"])
def get_health(request: HttpRequest) -> dict[str, str]:
    """This process answers."""
    return {"status": "healthy"}


@api.get(
    "/health/ready/",
    url_name="ready",
    tags=["health"],
    response=health.Readiness,
)
def get_ready(request: HttpRequest) -> health.Readiness | HttpResponse:
    """Whether orders can be taken and are on their way: database, migrations, whether it takes
    writes, age of the outbox.
    503 with the reason, and each check, where not."""
    readiness = health.readiness()
    if readiness.status == "ready":
        return readiness
    return problem(503, readiness.detail, checks=readiness.dict()["checks"])


@api.exception_handler(Problem)
def _problem(request: HttpRequest, error: Problem) -> HttpResponse:
    return problem(error.status, error.detail, errors=error.errors)


@api.exception_handler(ValidationError)
def _invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    errors = [{"field": _field(e["loc"]), "message": e["msg"]} for e in error.errors[:_MAX_ERRORS]]
    fields = ", ".join(dict.fromkeys(e["field"] for e in errors))
    return problem(422, f"not valid: {fields}", errors=errors)


@api.exception_handler(HttpError)
def _http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    # Ninja hides what our parser raised behind an error of its own.
    if isinstance(error.__cause__, Problem):
        return _problem(request, error.__cause__)
    return problem(error.status_code, str(error))


@api.exception_handler(RequestDataTooBig)
def _too_big(request: HttpRequest, error: RequestDataTooBig) -> HttpResponse:
    return too_big()


@api.exception_handler(UnreadablePostError)
def _unreadable(request: HttpRequest, error: UnreadablePostError) -> HttpResponse:
    return problem(408, "the body did not arrive")


@api.exception_handler(OperationalError)
@api.exception_handler(InterfaceError)
@api.exception_handler(InternalError)
def _unavailable(request: HttpRequest, error: Exception) -> HttpResponse:
    return unavailable(error)


def _field(loc: tuple[Any, ...]) -> str:
    """`("body", "body", "items", 0, "id")`, where the second is our parameter's name, is
    `items[0].id`; the whole body is `body`."""
    parts = list(loc)
    place = str(parts[0]) if parts else ""
    if parts and parts[0] in _PARAMETER_PLACES:
        parts = parts[2:] if parts[0] == "body" else parts[1:]
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".") or place
