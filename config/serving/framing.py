"""Read a request's head strictly: refuse all that two servers could understand differently.

waitress's parser refuses bad header lines, bare line breaks and lengths that are no number. What
waitress takes in good faith, and we do not, is refused here, with a status and a sentence.
"""

from http import HTTPStatus

from waitress.parser import HTTPRequestParser, ParsingError
from waitress.utilities import Error

VERSIONS = ("1.0", "1.1")


class Refusal(Error):  # noqa: N818 - it is never raised
    """Describe an error that the server answers itself, without the application.

    Args:
        code: HTTP status.
        body: a sentence for the client.
    """

    def __init__(self, code: int, body: str) -> None:
        super().__init__(body)
        self.code = code


class StrictParser(HTTPRequestParser):
    """Collect a request; once refused, the request is complete, and `error` holds the refusal."""

    path = ""
    command = ""
    _has_line = False
    _line_bytes = 0

    def received(self, data: bytes) -> int:
        """Take in bytes of the client.

        Returns:
            How many of the bytes belong to this request.
        """
        if not self._has_line:
            end = data.find(b"\n")
            self._has_line = end >= 0
            self._line_bytes += end if self._has_line else len(data)
        consumed = super().received(data)
        if self.error is not None and not isinstance(self.error, Refusal):
            self.error = self._refusal(self.error)
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        """Read the head, without its body.

        Raises:
            ParsingError: the bytes are not HTTP.
        """
        if b"\n " in header_plus or b"\n\t" in header_plus:
            raise ParsingError("a header goes on in the next line")
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # a length of more digits than Python reads
            raise ParsingError("Content-Length is invalid") from error
        refusal = self._framing_refusal()
        if refusal is not None:
            self.error, self.completed = refusal, True
            self.body_rcv, self.content_length = None, 0

    def _framing_refusal(self) -> Refusal | None:
        """Refuse a version or a framing that is not supported; None where all is well."""
        if self.version not in VERSIONS:
            return Refusal(505, f"HTTP/{self.version or '0.9'} is not spoken here; use HTTP/1.1")
        is_chunked = self.chunked or "TRANSFER_ENCODING" in self.headers
        if is_chunked and "CONTENT_LENGTH" in self.headers:
            return Refusal(400, "send Content-Length or Transfer-Encoding, not both")
        if is_chunked:
            return Refusal(411, "send Content-Length; chunked bodies are not read")
        if self.version == "1.1" and "HOST" not in self.headers:
            return Refusal(400, "HTTP/1.1 wants a Host header")
        return None

    def _refusal(self, error: Error) -> Refusal:
        """Turn an error of waitress into a status and a sentence of ours."""
        if error.code == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            # By its length, however many of the bytes have come at once.
            if not self._has_line or self._line_bytes > self.adj.max_request_header_size:
                return Refusal(414, "the address is too long")
            return Refusal(431, f"the headers are over {self.adj.max_request_header_size} bytes")
        if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return Refusal(413, f"the body is over {self.adj.max_request_body_size - 1} bytes")
        return Refusal(error.code, error.body)
