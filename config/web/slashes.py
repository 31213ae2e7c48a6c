"""Redirect to addresses with a slash at the end."""

from django.http import HttpRequest
from django.middleware.common import CommonMiddleware


class SafeSlashMiddleware(CommonMiddleware):
    """Add a missing slash for GET and HEAD only.

    A client that follows the redirect of a POST sends a GET, and would take the list of orders for
    the answer to its order.
    """

    def should_redirect_with_slash(self, request: HttpRequest) -> bool:
        """Tell whether to redirect: as Django does, but for GET and HEAD alone."""
        return request.method in ("GET", "HEAD") and super().should_redirect_with_slash(request)
