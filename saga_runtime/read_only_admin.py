"""Show rows in the admin without letting people change them: only services may."""

import re
from typing import Any

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponseBase
from django.template.response import SimpleTemplateResponse
from django.utils.functional import cached_property

from saga_runtime.text import visible

COUNTED = 10_000
_LAYOUT = re.compile(r"([\n\t]+)")


class _CountsSome(Paginator):  # type: ignore[type-arg]  # it is not generic when it runs
    """Count and show the first rows only.

    In a growing table a count of all rows ends with the statement timeout.
    """

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows[:COUNTED].count())


class ReadOnlyAdmin:
    """Base of read-only admin pages: rows change through services alone.

    No stored text hides or reorders the text of a page: Django escapes HTML, and all further
    control characters, such as marks for the direction of writing, are written out here.
    """

    paginator: type = _CountsSome

    def changelist_view(self, *args: Any, **kwargs: Any) -> Any:
        """Answer with the list of rows, its text made visible."""
        return _written_out(super().changelist_view(*args, **kwargs))  # type: ignore[misc]

    def changeform_view(self, *args: Any, **kwargs: Any) -> Any:
        """Answer with one row, its text made visible."""
        return _written_out(super().changeform_view(*args, **kwargs))  # type: ignore[misc]

    def history_view(self, *args: Any, **kwargs: Any) -> Any:
        """Answer with a row's history, its text made visible."""
        return _written_out(super().history_view(*args, **kwargs))  # type: ignore[misc]

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:  # noqa: ARG002
        """Refuse new rows."""
        return False

    def has_change_permission(self, request: HttpRequest, *_: Any) -> bool:  # noqa: ARG002
        """Refuse changes."""
        return False

    def has_delete_permission(self, request: HttpRequest, *_: Any) -> bool:  # noqa: ARG002
        """Refuse deletions."""
        return False


def _written_out(response: HttpResponseBase) -> HttpResponseBase:
    """Write out a page's control characters after rendering; any further response stays."""
    if isinstance(response, SimpleTemplateResponse):
        response.add_post_render_callback(_write_out)
    return response


def _write_out(response: SimpleTemplateResponse) -> None:
    parts = _LAYOUT.split(response.content.decode())
    response.content = "".join(part if _LAYOUT.match(part) else visible(part) for part in parts)
