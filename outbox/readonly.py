from typing import Any

from django.http import HttpRequest


class ReadOnlyAdmin:
    """For admin pages that only show: their rows change through services, which keep them right."""

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:  # noqa: ARG002
        return False

    def has_change_permission(self, request: HttpRequest, *_: Any) -> bool:  # noqa: ARG002
        return False

    def has_delete_permission(self, request: HttpRequest, *_: Any) -> bool:  # noqa: ARG002
        return False
