"""Give every request a correlation id and a trace context."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.http.request import HttpHeaders

from saga_runtime.correlation import correlated, taken_or_made

CORRELATION_HEADER = "X-Correlation-ID"
TRACE_HEADER = "traceparent"
# `request.headers` would copy all of them for these two.
_CORRELATION_META = HttpHeaders.to_wsgi_name(CORRELATION_HEADER)
_TRACE_META = HttpHeaders.to_wsgi_name(TRACE_HEADER)


class CorrelationMiddleware:
    """Take or make the correlation id and traceparent of a request, and echo both."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request under its correlation."""
        correlation = taken_or_made(
            id=request.META.get(_CORRELATION_META),
            traceparent=request.META.get(_TRACE_META),
        )
        with correlated(correlation):
            response = self._get_response(request)
        response[CORRELATION_HEADER] = correlation.id
        response[TRACE_HEADER] = correlation.traceparent
        return response
