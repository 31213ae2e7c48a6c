"""Keep sessions, users and messages to the admin; requests to the API skip them."""

from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.db import DataError
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

from config.web.problems import problem

ADMIN_PATH = "/admin/"


def is_admin(request: HttpRequest) -> bool:
    """Tell whether the request is for the admin."""
    return request.path_info.startswith(ADMIN_PATH)


def _has_escaped_nul(path: str) -> bool:
    """Tell whether the key in an admin address (`/admin/app/model/KEY/…`) holds an escaped NUL.

    The admin writes NUL as `_00`, and in a key each `_` as `_5F`; names of apps and models may have
    `_00` in them.
    """
    key = path.removeprefix(ADMIN_PATH).split("/")[2:3]
    return "_00" in "".join(key)


class AdminValuesMiddleware:
    """Refuse values that the database cannot take, where Django's admin would answer 500.

    These are NUL in addresses and cookies, and numbers out of range in filters.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer 400 to an admin request with NUL; pass on all others."""
        if is_admin(request):
            path, query = request.path_info, unquote(request.META.get("QUERY_STRING", ""))
            if _has_escaped_nul(path) or any(
                "\0" in text for text in (path, query, *request.COOKIES.values())
            ):
                return problem(400, "the request holds a NUL character")
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer 400 where the database refused a value of an admin request."""
        if isinstance(error, (OverflowError, DataError)) and is_admin(request):
            return problem(400, "the request holds a value that is out of range")
        return None


class _AdminOnly(MiddlewareMixin):
    """Run a middleware for the admin's requests alone."""

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Skip the middleware for all other requests."""
        if is_admin(request):
            return super().__call__(request)
        return self.get_response(request)


class AdminSessionMiddleware(_AdminOnly, SessionMiddleware):
    """Load and save sessions, in the admin."""


class AdminAuthenticationMiddleware(_AdminOnly, AuthenticationMiddleware):
    """Set `request.user`, in the admin."""


class AdminMessageMiddleware(_AdminOnly, MessageMiddleware):
    """Store messages for the next page, in the admin."""
