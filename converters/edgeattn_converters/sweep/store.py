"""The place of a sweep's results: documents by content address, bundles, the table, and a lock.

    RESULTS/
      table.parquet            one row for each artifact and dataset
      summary.html
      results/KEY.json         what one conversion, or one validation on a dataset, gave
      bundles/KEY.edge/        the bundle of a conversion

``KEY`` is the SHA-256 of everything that a result depends on. A document is written after all else
that belongs to it, so what has a document is complete.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeattn import files
from edgeattn.bundle.manifest import MANIFEST, Manifest
from edgeattn.errors import EdgeattnError, OutputInUseError, UsageError
from edgeattn_converters.sweep import remote

Document = dict[str, Any]
TABLE, SUMMARY = "table.parquet", "summary.html"
# Seconds between the signs of life of a sweep that writes to a store without locks.
BEAT_S = 5.0


class Store:
    """The results at a URL."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._root = remote.open_url(self.url)[1]

    @property
    def _filesystem(self) -> Any:
        # One for each thread, which fsspec keeps: a connection of SFTP serves one thread only. Two
        # that share it take each other's replies, and wait for ever.
        return remote.open_url(self.url)[0]

    @property
    def local(self) -> bool:
        return remote.is_local(self.url)

    def at(self, *parts: str) -> str:
        """The URL of a file in the store."""
        return "/".join((self.url, *parts))

    def _path(self, *parts: str) -> str:
        return "/".join((self._root.rstrip("/"), *parts))

    def read(self, *parts: str) -> bytes | None:
        """The content of a file; None if it is missing."""
        try:
            content: bytes = remote.attempt(self.url, self._filesystem.cat_file, self._path(*parts))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return content

    def write(self, content: bytes, *parts: str) -> None:
        """Write a file: completely or not at all, if the store can."""
        if self.local:
            with files.atomic_write(remote.local_path(self.at(*parts)), parents=True) as file:
                file.write(content)
            return
        path = self._path(*parts)
        remote.attempt(self.url, self._filesystem.makedirs, path.rpartition("/")[0], exist_ok=True)
        remote.attempt(self.url, self._filesystem.pipe_file, path, content)

    def document(self, key: str) -> Document | None:
        """The document of a result; None if there is none, or only a part of one."""
        content = self.read("results", f"{key}.json")
        try:
            document = json.loads(content or b"")
        except ValueError:  # of a sweep that was killed while it wrote
            return None
        return document if isinstance(document, dict) and document.get("key") == key else None

    def write_document(self, document: Mapping[str, Any]) -> None:
        text = json.dumps(document, indent=1, allow_nan=False) + "\n"
        self.write(text.encode(), "results", f"{document['key']}.json")

    def keys(self) -> frozenset[str]:
        """The keys of all results in the store."""
        try:
            # Not every client takes an argument for that.
            self._filesystem.invalidate_cache()
            paths = remote.attempt(
                self.url, self._filesystem.ls, self._path("results"), detail=False
            )
        except FileNotFoundError:
            return frozenset()
        return frozenset(
            remote.name_of(path).removesuffix(".json") for path in paths if path.endswith(".json")
        )

    def write_bundle(self, key: str, folder: Path) -> None:
        """Copy a bundle to the store."""
        if self.local:
            target = remote.local_path(self.at("bundles", f"{key}.edge"))
            # A worker that Dask lost may still be writing the same bundle.
            with (
                files.reserved(target, wait=True) as workspace,
                files.new_folder(workspace, target) as new,
            ):
                shutil.copytree(folder, new, dirs_exist_ok=True)
            return
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = file.relative_to(folder).as_posix()
            self.write(file.read_bytes(), "bundles", f"{key}.edge", name)

    def read_bundle(self, key: str, folder: Path) -> Path:
        """Copy the bundle of a result to ``folder``."""
        target = folder / f"{key}.edge"
        names = [MANIFEST]
        for name in names:
            content = self.read("bundles", target.name, name)
            if content is None:
                raise UsageError(
                    f"{self.at('bundles', target.name)} has no {name}.",
                    hint=f"Remove {self.at('results', key + '.json')} to convert it again.",
                )
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(content)
            if name == MANIFEST:
                names += Manifest.from_json(json.loads(content)).hashes
        return target

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other sweeps from writing here.

        Raises :class:`OutputInUseError` if one does, and :class:`UsageError` if the store cannot
        be written.
        """
        with self._local_lock() if self.local else self._remote_lock():
            yield

    @contextlib.contextmanager
    def _local_lock(self) -> Iterator[None]:
        try:
            with files.reserved(remote.local_path(self.at("sweep"))):
                yield
        except PermissionError as error:
            raise UsageError(
                f"Access to {self.url} is denied.", hint="Choose another folder for the results."
            ) from error
        except OutputInUseError as error:
            raise self._in_use() from error

    @contextlib.contextmanager
    def _remote_lock(self) -> Iterator[None]:
        """A file that changes while a sweep is alive: clocks of several machines may differ."""
        before = self.read("sweep.lock")
        stop, connected = threading.Event(), threading.Event()
        if before:
            stop.wait(2.5 * BEAT_S)
            if self.read("sweep.lock") not in (None, b"", before):
                raise self._in_use()
        token = uuid.uuid4().hex

        def beat() -> None:
            count = 1
            # The thread connects, which takes time, before others wait for its first beat.
            with contextlib.suppress(EdgeattnError, OSError):
                self.read("sweep.lock")
            connected.set()
            while not stop.wait(BEAT_S):
                with contextlib.suppress(EdgeattnError, OSError):
                    self.write(f"{token} {count}".encode(), "sweep.lock")
                count += 1

        self.write(f"{token} 0".encode(), "sweep.lock")
        # Of two sweeps that start at the same time, the one that wrote last continues.
        stop.wait(BEAT_S / 5)
        if not (self.read("sweep.lock") or b"").startswith(token.encode()):
            raise self._in_use()
        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        connected.wait()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            # Not every store can remove files.
            with contextlib.suppress(EdgeattnError, OSError):
                self.write(b"", "sweep.lock")

    def _in_use(self) -> OutputInUseError:
        return OutputInUseError(
            f"Another sweep is writing to {self.url}.",
            hint="Wait until it has ended, or name another place in the plan: results = URL",
        )
