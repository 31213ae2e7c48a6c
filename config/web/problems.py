"""Answer every error with `application/problem+json` (RFC 9457), whichever route and status."""

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
    """Build the response for a problem.

    Args:
        status: HTTP status.
        detail: a sentence for the client; by default the meaning of the status.
        errors: `{"field": …, "message": …}` for each part of the request at fault.
        more: further members of the body.
    """
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


def database_unavailable(error: Exception) -> HttpResponse:
    """Answer 503 with `Retry-After`, and write the log's one line about the error.

    Args:
        error: says whether the database does not answer, or takes no writes.
    """
    state = "does not answer"
    if database_writes.is_refused_write(error):
        state = "takes no writes"
        database_writes.note_refused(one_line_error(error))
    logger.warning("the database %s: %s", state, one_line_error(error))
    response = problem(503, f"the database {state}; try again in a few seconds")
    response["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def body_too_big() -> HttpResponse:
    """Answer 413, with the largest allowed size."""
    return problem(413, f"the body is over {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes")


class ProblemMiddleware:
    """Turn errors that Django or a view answers in another form into problems."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Replace an error's body by a problem; keep `Allow`, `Retry-After` and cookies."""
        if "HTTP_TRANSFER_ENCODING" in request.META:  # Django would take the body for empty
            return problem(411, "send Content-Length; chunked bodies are not read")
        response = self._get_response(request)
        if request.method not in READING and response.status_code < HTTPStatus.MULTIPLE_CHOICES:
            database_writes.note_taken()
        if response.status_code < HTTPStatus.BAD_REQUEST or _is_problem_already(response):
            return response
        replaced = problem(response.status_code)
        for header in ("Allow", "Retry-After"):
            if header in response:
                replaced[header] = response[header]
        replaced.cookies = response.cookies
        return replaced

    def process_exception(self, _request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer 503 where the database is away, and 413 to a body too big."""
        if isinstance(error, AWAY):
            return database_unavailable(error)
        if isinstance(error, RequestDataTooBig):
            return body_too_big()
        return None


def bad_request(_request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 400 where Django cannot read the request."""
    if isinstance(exception, RequestDataTooBig):
        return body_too_big()
    return problem(400, one_line_error(exception) or "the request cannot be read")


def forbidden(_request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 403 where Django refuses the request."""
    return problem(403, one_line_error(exception) or "not allowed")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001 - Django's signature
    """Answer 404 where no route has the path."""
    hint = "" if request.path.endswith("/") else "; paths end with a slash"
    return problem(404, f"there is nothing at {request.path}{hint}")


def server_error(_request: HttpRequest) -> HttpResponse:
    """Answer 500 after an error that no code has handled."""
    return problem(500, "an error of ours; it is in the log under the correlation id")


def _is_problem_already(response: HttpResponse) -> bool:
    """Tell whether a response needs no replacing: JSON, or Django's page for debugging."""
    is_debug_page = settings.DEBUG and response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
    return is_debug_page or response.get("Content-Type", "").split(";")[0] in (
        CONTENT_TYPE,
        "application/json",
    )
