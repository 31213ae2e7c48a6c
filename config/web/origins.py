"""Refuse changes that a page of another site could have caused.

Such a page can have a browser send a form, or an empty body, to any address, without asking. It
cannot have `application/json` sent without a CORS preflight, which is not answered here.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.http import is_same_domain

from config.web.problems import problem

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
BODY_TYPES = ("application/json", "")  # "": no Content-Type, as curl sends without a body
_FOREIGN_SITES = ("cross-site", "same-site")

Operation = Callable[..., Any]


def refuse_foreign_changes(run: Operation) -> Operation:
    """Wrap an operation: answer 403 or 415 to a change that a foreign page could have caused."""

    @wraps(run)
    def run_unless_foreign(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return _refusal(request) or run(request, *args, **kwargs)

    return run_unless_foreign


def _refusal(request: HttpRequest) -> HttpResponse | None:
    """Build the answer to a foreign change; None where the request may go on."""
    if request.method in SAFE_METHODS:
        return None
    if _is_foreign(request):
        return problem(
            403,
            "a page of another site may change nothing here; if it is yours, name its origin in "
            "CSRF_TRUSTED_ORIGINS",
        )
    if request.content_type not in BODY_TYPES:
        return problem(415, "send Content-Type: application/json")
    return None


def _is_foreign(request: HttpRequest) -> bool:
    """Tell whether a browser says that the request comes from a page of another origin.

    Browsers send `Origin` with every POST; `Sec-Fetch-Site` counts where `Origin` was removed on
    the way.
    """
    origin = request.META.get("HTTP_ORIGIN")
    if origin is None:
        return request.META.get("HTTP_SEC_FETCH_SITE") in _FOREIGN_SITES
    ours = f"{request.scheme}://{request.get_host()}"  # a page by http:// may be forged on its way
    return origin.lower() != ours.lower() and not _is_trusted(origin.lower())


def _is_trusted(origin: str) -> bool:
    """Tell whether CSRF_TRUSTED_ORIGINS has the origin, whole or as `https://*.example.com`."""
    if origin in settings.CSRF_TRUSTED_ORIGINS:
        return True
    scheme, _, host = origin.partition("://")
    patterns = (trusted.split("://*", 1) for trusted in settings.CSRF_TRUSTED_ORIGINS)
    return any(
        len(pattern) == len(("scheme", "domain"))
        and pattern[0] == scheme
        and is_same_domain(host, pattern[1])
        for pattern in patterns
    )
