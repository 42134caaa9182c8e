"""A server of HTTP that answers with a bundle until it is stopped."""

import ipaddress
import json
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from edgeattn.errors import UsageError, first_line
from edgeattn.serving.handler import Handler
from edgeattn.serving.http_error import busy
from edgeattn.serving.model import ServeOptions
from edgeattn.serving.service import Log, Service

# Connections, most of which are idle; each has a thread.
MAX_CONNECTIONS = 64
# Seconds between looks at the path of the bundle.
RELOAD_SECONDS = 1.0
_LOOPBACK_NAMES = {"localhost", "127.0.0.1", "::1"}


class Server(ThreadingHTTPServer):
    """Answers with one bundle at one address."""

    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(
        self, path: Path, options: ServeOptions, host: str, port: int, log: Log = print
    ) -> None:
        """Port 0 stands for a free one.

        Raises :class:`UsageError` if it cannot listen there, and the errors of loading the bundle.
        """
        self.log = log
        self._host = host
        self._connections = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._tracked, self._idle = 0, threading.Condition()
        try:
            self.address_family, _, _, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            super().__init__(address, Handler)  # type: ignore[arg-type]
        except (OSError, OverflowError, UnicodeError) as error:
            raise UsageError(
                f"Cannot listen on {host}, port {port}: {getattr(error, 'strerror', error)}.",
                hint="Choose another --port, or an address of this machine with --host.",
            ) from error
        try:
            self.service = Service(path, options, log)
        except BaseException:
            self.server_close()
            raise
        bound = ipaddress.ip_address(str(self.server_address[0]))
        self.loopback = bound.is_loopback
        self._hosts = None if bound.is_unspecified else {host.lower(), str(bound)}
        if self._hosts is not None and self.loopback:
            self._hosts |= _LOOPBACK_NAMES

    def server_bind(self) -> None:
        # That of HTTPServer looks up the name of the host, which can take seconds.
        socketserver.TCPServer.server_bind(self)

    @property
    def url(self) -> str:
        """The URL of the service, with the port that the system chose."""
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def serves_host(self, name: str) -> bool:
        """Whether requests for the host ``name`` are answered: its own, unless it serves all."""
        return self._hosts is None or name.lower() in self._hosts

    def run(self, stop: threading.Event, *, reload_seconds: float = RELOAD_SECONDS) -> None:
        """Answer requests until ``stop`` is set; then finish those in progress and close."""
        thread = threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        try:
            while not stop.wait(reload_seconds):
                self.service.reload_if_moved()
        finally:
            self.service.draining = True
            self.shutdown()
            self.server_close()
            with self._idle:
                self._idle.wait_for(lambda: not self._tracked, 2 * self.service.options.seconds)
            self.service.close()

    @contextmanager
    def tracked(self) -> Iterator[None]:
        """A request, which :meth:`run` lets finish."""
        with self._idle:
            self._tracked += 1
        try:
            yield
        finally:
            with self._idle:
                self._tracked -= 1
                self._idle.notify_all()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, or refuse it if there are too many."""
        if not self._connections.acquire(blocking=False):
            self.service.counters.count_response(503)
            with suppress(OSError):
                request.sendall(_REFUSAL)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._connections.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        # Clients may end their connections at any time.
        if error is not None and not isinstance(error, OSError):
            self.log(f"A connection failed: {type(error).__name__}: {first_line(error)}")


def _refusal() -> bytes:
    body = json.dumps(busy("Too many connections.").document())
    head = (
        "HTTP/1.1 503 Service Unavailable",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Retry-After: 1",
        "Connection: close",
    )
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


_REFUSAL = _refusal()
