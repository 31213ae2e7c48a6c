"""Every error is `application/problem+json` (RFC 9457), whichever route and status."""

import json
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse

from config.web import database_writes
from saga_runtime.correlation import current
from saga_runtime.database_errors import AWAY
from saga_runtime.logs import get_logger
from saga_runtime.text import one_line_error

logger = get_logger(__name__)

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5
READING = ("GET", "HEAD", "OPTIONS")


def problem(
    status: int, detail: str = "", *, errors: Sequence[dict[str, str]] = (), **more: Any
) -> HttpResponse:
    """The response for a problem; without a detail, with what its status means."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail or HTTPStatus(status).description or HTTPStatus(status).phrase,
        "correlation_id": current().id,
    }
    if errors:
        body["errors"] = list(errors)
    return HttpResponse(json.dumps(body | more), status=status, content_type=CONTENT_TYPE)


def unavailable(error: Exception) -> HttpResponse:
    """The database is away, or takes no writes; the client may try again. This writes the one
    line that the log has of it."""
    state = "does not answer"
    if database_writes.is_refused_write(error):
        state = "takes no writes"
        database_writes.note_refused(one_line_error(error))
    logger.warning("the database %s: %s", state, one_line_error(error))
    response = problem(503, f"the database {state}; try again in a few seconds")
    response["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def too_big() -> HttpResponse:
    return problem(413, f"the body is over {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes")


class ProblemMiddleware:
    """Turns errors that Django or a view answers in its own form into problems."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if "HTTP_TRANSFER_ENCODING" in request.META:  # Django would take the body for empty
            return problem(411, "send Content-Length; chunked bodies are not read")
        response = self._get_response(request)
        if request.method not in READING and response.status_code < HTTPStatus.MULTIPLE_CHOICES:
            database_writes.note_taken()
        if response.status_code < HTTPStatus.BAD_REQUEST or _is_told(response):
            return response
        replaced = problem(response.status_code)
        for header in ("Allow", "Retry-After"):
            if header in response:
                replaced[header] = response[header]
        replaced.cookies = response.cookies
        return replaced

    def process_exception(self, _request: HttpRequest, error: Exception) -> HttpResponse | None:
        if isinstance(error, AWAY):
            return unavailable(error)
        if isinstance(error, RequestDataTooBig):
            return too_big()
        return None


def bad_request(_request: HttpRequest, exception: Exception) -> HttpResponse:
    if isinstance(exception, RequestDataTooBig):
        return too_big()
    return problem(400, one_line_error(exception) or "the request cannot be read")


def forbidden(_request: HttpRequest, exception: Exception) -> HttpResponse:
    return problem(403, one_line_error(exception) or "not allowed")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001 - Django's signature
    hint = "" if request.path.endswith("/") else "; paths end with a slash"
    return problem(404, f"there is nothing at {request.path}{hint}")


def server_error(_request: HttpRequest) -> HttpResponse:
    return problem(500, "an error of ours; it is in the log under the correlation id")


def _is_told(response: HttpResponse) -> bool:
    is_debug_page = settings.DEBUG and response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
    return is_debug_page or response.get("Content-Type", "").split(";")[0] in (
        CONTENT_TYPE,
        "application/json",
    )
