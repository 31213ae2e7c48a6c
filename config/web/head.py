"""Answer HEAD requests."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse


class HeadMiddleware:
    """Answer HEAD wherever GET is answered (RFC 9110, section 9.3.2): probes use HEAD."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer as to GET, without the body."""
        if request.method != "HEAD":
            return self._get_response(request)
        request.method = "GET"
        response = self._get_response(request)
        request.method = "HEAD"
        if not response.streaming:
            response.headers.setdefault("Content-Length", str(len(response.content)))
            response.content = b""
        return response
