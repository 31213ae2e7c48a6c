from typing import Any

from django.core.paginator import Paginator
from django.http import HttpRequest
from django.utils.functional import cached_property

COUNTED = 10_000


class _CountsSome(Paginator):  # type: ignore[type-arg]  # it is not generic when it runs
    """Counts, and leafs, so far and no further: in a table that only grows, counting all ends with
    the statement timeout."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows[:COUNTED].count())


class ReadOnlyAdmin:
    """For admin pages that only show: their rows change through services, which keep them right."""

    paginator: type = _CountsSome

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:  # noqa: ARG002
        return False

    def has_change_permission(self, request: HttpRequest, *_: Any) -> bool:  # noqa: ARG002
        return False

    def has_delete_permission(self, request: HttpRequest, *_: Any) -> bool:  # noqa: ARG002
        return False
