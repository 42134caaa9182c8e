"""Requests over HTTP. Only these paths exist, and no text of a request becomes a file name.

POST /answer         {"sample": ...} or {"samples": [...]}, or a .wav file
GET /health
GET /metrics
GET /openapi.json
"""

import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from edgeattn.errors import ArtifactError, first_line
from edgeattn.serving.counters import CONTENT_TYPE
from edgeattn.serving.http_error import HttpError, busy
from edgeattn.serving.openapi import describe_service
from edgeattn.serving.request_body import parse_body
from edgeattn.version import __version__

if TYPE_CHECKING:
    from edgeattn.serving.server import Server

JSON, SOUND = "application/json", "audio/wav"
BLOCK = 2**16
# What is read of a refused body, so that the client sees the response before the connection ends.
DISCARD_BYTES = 2**26
DISCARD_SECONDS = 2.0


class Response(NamedTuple):
    status: int
    content_type: str
    body: bytes
    headers: dict[str, str]


class Handler(BaseHTTPRequestHandler):
    """The requests of one connection, one after the other."""

    protocol_version = "HTTP/1.1"
    # Headers and body in one packet: otherwise the body waits for the client's acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: "Server"

    def version_string(self) -> str:
        return "edgeattn"

    def setup(self) -> None:
        self._unread = 0
        self.command = ""
        # For each wait for the client, also between requests.
        self.request.settimeout(self.server.service.options.seconds)
        super().setup()

    def handle_expect_100(self) -> bool:
        # Sent when the body is read: a client need not send one that is refused.
        return True

    def _handle(self) -> None:
        self._unread = self._body_length(default=0)
        with self.server.tracked():
            try:
                response = self._respond()
            except HttpError as error:
                response = _error_response(error)
            except ArtifactError as error:
                self.server.log(f"A request failed: {first_line(error)}")
                response = _error_response(HttpError(500, error.message, hint=error.hint))
            except Exception as error:
                self.server.log(f"A request failed: {type(error).__name__}: {first_line(error)}")
                response = _error_response(HttpError(500, "The service failed."))
            self._write(response)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _handle
    do_TRACE = do_QUERY = _handle

    def _respond(self) -> Response:
        self._check_host()
        try:
            path = urlsplit(self.path).path
        except ValueError as error:
            raise HttpError(400, f"The path is malformed: {error}") from error
        methods = _ROUTES.get(path)
        if methods is None:
            raise HttpError(404, "There is nothing at this path.", hint=f"Paths: {_PATHS}.")
        method = "GET" if self.command == "HEAD" else self.command
        if method not in methods:
            allowed = "GET, HEAD" if "GET" in methods else "POST"
            raise HttpError(
                405, f"{path} does not accept {self.command}.", headers={"Allow": allowed}
            )
        return methods[method](self)

    def _check_host(self) -> None:
        """Refuse pages of other sites whose name leads to this address."""
        try:
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        except ValueError:
            host = ""
        if not self.server.serves_host(host):
            raise HttpError(
                421,
                f"The host {host!r} is not served here.",
                hint="Use the address of the service, or start it with --host.",
            )

    def _answer(self) -> Response:
        service = self.server.service
        start = time.monotonic()
        self._check_content()
        with service.request():
            deadline = start + service.options.seconds
            body = self._read_body(deadline)
            samples, several = parse_body(body) if not self._is_sound else ([body], False)
            answer = service.answer(samples, several=several, deadline=deadline)
        service.counters.count_answers(len(samples), time.monotonic() - start)
        return _json_response(200, answer)

    @property
    def _is_sound(self) -> bool:
        return self.headers.get_content_type() == SOUND

    def _check_content(self) -> None:
        if "Transfer-Encoding" in self.headers or self._body_length(default=-1) < 0:
            raise HttpError(411, "The length of the body is missing.", hint="Send Content-Length.")
        charset = self.headers.get_content_charset("utf-8")
        encoded = self.headers.get("Content-Encoding", "identity").lower() != "identity"
        is_json = self.headers.get_content_type() == JSON and charset == "utf-8"
        if encoded or not (is_json or self._is_sound):
            raise HttpError(
                415,
                f"The body must be JSON in UTF-8, or {SOUND}, without compression.",
                hint=f"Send Content-Type: {JSON}.",
            )
        limit = self.server.service.options.max_bytes
        if self._unread > limit:
            raise HttpError(
                413,
                f"The body has {self._unread} bytes; the limit is {limit}.",
                hint="Send fewer samples, or start the service with a larger --max-size.",
            )

    def _body_length(self, default: int) -> int:
        """``Content-Length``, or ``default`` if it is missing, repeated or malformed."""
        values = self.headers.get_all("Content-Length", [])
        text = values[0].strip() if len(values) == 1 else ""
        return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else default

    def _read_body(self, deadline: float) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
            self.wfile.flush()
        parts = []
        while self._unread:
            late = time.monotonic() > deadline
            try:
                part = b"" if late else self.rfile.read1(min(self._unread, BLOCK))
            except TimeoutError:
                late, part = True, b""
            if not part:
                reason = "did not arrive in time" if late else "ends early"
                raise HttpError(408 if late else 400, f"The body {reason}.")
            self._unread -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _health(self) -> Response:
        service = self.server.service
        if service.draining:
            raise busy("The service is ending.")
        document = {
            "status": "ok",
            **service.describe(),
            "edgeattn": __version__,
            "reload_failed": service.reload_failed,
        }
        return _json_response(200, document)

    def _metrics(self) -> Response:
        service = self.server.service
        text = service.counters.exposition(service.running, service.describe())
        return Response(200, CONTENT_TYPE, text.encode(), {})

    def _openapi(self) -> Response:
        with self.server.service.model() as model:
            return _json_response(200, describe_service(model))

    def _write(self, response: Response) -> None:
        # Of a body without a usable length, it is not known where it ends.
        has_body = bool(self._unread) or "Transfer-Encoding" in self.headers
        has_body |= response.status == 411
        has_body |= "Content-Length" in self.headers and self._body_length(default=-1) < 0
        if has_body or self.server.service.draining:
            self.close_connection = True
        self._send(response)
        if has_body:
            self._discard_body()

    def _send(self, response: Response) -> None:
        self.server.service.counters.count_response(response.status)
        # The base class omits the status for requests that it cannot parse.
        self.request_version = self.protocol_version
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        for name, value in response.headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)
        self.wfile.flush()

    def _discard_body(self) -> None:
        """Read what the client still sends: closing before would destroy the response."""
        deadline, count = time.monotonic() + DISCARD_SECONDS, 0
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while count < DISCARD_BYTES and (left := deadline - time.monotonic()) > 0:
                self.connection.settimeout(left)
                part = self.connection.recv(BLOCK)
                if not part:
                    return
                count += len(part)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Errors of the base class: requests that are not HTTP, and unknown methods."""
        self.close_connection = True
        self._send(_error_response(HttpError(code, message or self.responses[code][0])))

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are counted, not logged."""


_ROUTES: dict[str, dict[str, Callable[[Handler], Response]]] = {
    "/answer": {"POST": Handler._answer},
    "/health": {"GET": Handler._health},
    "/metrics": {"GET": Handler._metrics},
    "/openapi.json": {"GET": Handler._openapi},
}
_PATHS = ", ".join(_ROUTES)


def _json_response(status: int, document: Any, headers: dict[str, str] | None = None) -> Response:
    body = json.dumps(document, allow_nan=False).encode()
    return Response(status, JSON, body, headers or {})


def _error_response(error: HttpError) -> Response:
    return _json_response(error.status, error.document(), error.headers)
