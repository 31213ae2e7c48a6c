"""Define the error with which any layer answers an HTTP request by a problem (RFC 9457)."""

from collections.abc import Sequence


class Problem(Exception):  # noqa: N818 - RFC 9457's term
    """Raised to end a request with a problem body.

    Args:
        status: HTTP status, 400 or above.
        detail: a sentence for the client.
        errors: `{"field": …, "message": …}` for each faulty part of the request.
    """

    def __init__(self, status: int, detail: str, *, errors: Sequence[dict[str, str]] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = list(errors)
