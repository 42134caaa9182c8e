"""Plans for the tests of sweeps, an object store over HTTP, and a folder on an SFTP server."""

from __future__ import annotations

import contextlib
import getpass
import html
import http.server
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sshd import local_sshd

SPECIMENS = Path(__file__).parents[2] / "specimens"
# Each is a small model of another kind.
WORDS = SPECIMENS / "keras-2.3.1" / "masked_words.h5"
LUONG = SPECIMENS / "attention-5.0.0-tf2.11" / "luong_functional.h5"


def write_plan(folder: Path, *models: str, options: str = 'schemes = ["float32"]') -> Path:
    """A plan with these tables ``[[models]]``, whose results are in the folder ``results``."""
    tables = "".join(f"\n[[models]]\n{text}\n" for text in models)
    path = folder / "plan.toml"
    path.write_text(f'results = "results"\n{options}\n{tables}')
    return path


def fake_document(key: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """A result in which every artifact passes."""
    pairs = [(f, s) for f in job["options"]["formats"] for s in job["options"]["schemes"]]
    return {
        "key": key,
        "status": "converted",
        "reason": None,
        "artifacts": [
            {"format": f, "scheme": s, "path": "p", "sha256": "0", "bytes": 1, "verdict": "pass"}
            | {"achieved_scheme": s, "recommended": False}
            for f, s in pairs
        ],
        "failures": [],
        "seconds": 10.0,
    }


class ObjectStore(http.server.ThreadingHTTPServer):
    """Files by path in memory, with GET, HEAD, PUT and lists of folders.

    The next ``failures`` requests are answered with 503, as a store does that is overloaded.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.failures = 0
        self.writable = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: ObjectStore
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        files = self.server.files
        path = self.path.rstrip("/")
        if self.server.failures > 0:
            self.server.failures -= 1
            self._reply(503)
        elif path in files:
            self._reply(200, files[path], "application/octet-stream")
        elif names := {name for name in files if name.startswith(f"{path}/")}:
            links = (f'<a href="{html.escape(name)}">{html.escape(name)}</a>' for name in names)
            self._reply(200, "\n".join(links).encode(), "text/html")
        else:
            self._reply(404)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.failures > 0:
            self.server.failures -= 1
            self._reply(503)
        elif self.server.writable:
            self.server.files[self.path] = content
            self._reply(201)
        else:
            self._reply(403)

    def _reply(self, code: int, content: bytes = b"", kind: str = "text/plain") -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", kind)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def object_store() -> Iterator[ObjectStore]:
    with ObjectStore() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def sftp_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """The URL of a new folder on an SFTP server, and the file of known hosts, which has its key."""
    import fsspec

    from edgeattn_converters.sweep import host_keys

    folder.mkdir()
    with local_sshd(folder) as server:
        lines = server.config.read_text().split()
        port, key = lines[lines.index("Port") + 1], lines[lines.index("IdentityFile") + 1]
        monkeypatch.setitem(fsspec.config.conf, "sftp", {"key_filename": key})
        monkeypatch.setattr(host_keys, "FILES", (str(server.known_hosts),))
        yield f"sftp://{getpass.getuser()}@127.0.0.1:{port}{folder}", server.known_hosts
        fsspec.get_filesystem_class("sftp").clear_instance_cache()
