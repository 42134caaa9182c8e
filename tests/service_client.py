"""A server in this process, on a free port of the loopback interface, and requests to it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from edgeattn.serving.model import ServeOptions
from edgeattn.serving.server import Server


class Reply(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return self.document["error"]["message"]


class Running:
    """A server that runs, its log, and requests to it."""

    def __init__(self, path: Path, server: Server, log: list[str], stop: threading.Event) -> None:
        self.server, self.log, self.stop = server, log, stop
        self.path = path
        self.port = server.server_address[1]

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """A request on a connection of its own; ``_`` in names of headers stands for ``-``."""
        connection = self.connection()
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Reply:
        return self.request("GET", path)

    def post(self, document: Any, **headers: str) -> Reply:
        """POST to /answer; bytes are sent as they are."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.request(
            "POST", "/answer", body, **{"Content_Type": "application/json"} | headers
        )


@contextmanager
def serving(path: Path, options: ServeOptions | None = None) -> Iterator[Running]:
    """Serve the bundle at ``path`` until the block ends; it is reloaded by hand only."""
    log: list[str] = []
    server = Server(path, options or ServeOptions(), "127.0.0.1", 0, log.append)
    stop = threading.Event()
    thread = threading.Thread(target=server.run, args=(stop,), kwargs={"reload_seconds": 3600})
    thread.start()
    try:
        yield Running(path, server, log, stop)
    finally:
        stop.set()
        thread.join()
