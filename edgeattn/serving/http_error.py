"""The error of a request: an HTTP status with a message and a hint."""

from collections.abc import Mapping
from typing import Any

from edgeattn.printable import printable


class HttpError(Exception):
    """A response with an error ``status``; ``headers`` are added to it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.hint = hint
        self.headers = dict(headers or {})

    def document(self) -> dict[str, Any]:
        """The JSON of the response. Excerpts of requests in it are printable."""
        hint = None if self.hint is None else printable(self.hint)
        return {"error": {"message": printable(self.message), "hint": hint}}


def busy(message: str) -> HttpError:
    """503, which a client may repeat a second later."""
    return HttpError(503, message, hint="Try again later.", headers={"Retry-After": "1"})
