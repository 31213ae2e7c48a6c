"""Sessions, users and messages are for the admin: the API's requests go past them."""

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
    return request.path_info.startswith(ADMIN_PATH)


def _writes_nul(path: str) -> bool:
    """Whether the key in an address (`/admin/app/model/KEY/…`) holds NUL as the admin writes it.
    An app or a model may have `_00` in its name; in a key the admin writes `_` as `_5F`."""
    key = path.removeprefix(ADMIN_PATH).split("/")[2:3]
    return "_00" in "".join(key)


class AdminValuesMiddleware:
    """Refuses what the database cannot take, where Django's admin would answer 500: NUL in
    addresses and cookies (the admin itself writes it as `_00` in an address), numbers out of range
    in filters."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if is_admin(request):
            path, query = request.path_info, unquote(request.META.get("QUERY_STRING", ""))
            if _writes_nul(path) or any(
                "\0" in text for text in (path, query, *request.COOKIES.values())
            ):
                return problem(400, "the request holds a NUL character")
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if isinstance(error, (OverflowError, DataError)) and is_admin(request):
            return problem(400, "the request holds a value that is out of range")
        return None


class _AdminOnly(MiddlewareMixin):
    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if is_admin(request):
            return super().__call__(request)
        return self.get_response(request)


class AdminSessionMiddleware(_AdminOnly, SessionMiddleware):
    """Sessions, in the admin."""


class AdminAuthenticationMiddleware(_AdminOnly, AuthenticationMiddleware):
    """`request.user`, in the admin."""


class AdminMessageMiddleware(_AdminOnly, MessageMiddleware):
    """Messages, in the admin."""
