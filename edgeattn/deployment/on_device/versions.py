"""On the device: the versions of a bundle, one of which serves.

    ROOT/versions/0002-9f86d081884c/bundle/      a bundle
    ROOT/versions/0002-9f86d081884c/record.json  its files, and the version that served before it
    ROOT/versions/0002-9f86d081884c/report.json  the report of its validation on this device
    ROOT/current -> versions/0002-9f86d081884c/bundle

``current`` is replaced by a rename, so it always points to the old version or to the new one. A
version's folder is created under another name, synced to disk, then renamed. An interruption
therefore leaves the current version serving; the next deployment removes leftover files.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgeattn.bundle.bundle import Bundle, read_manifest
from edgeattn.bundle.manifest import MANIFEST
from edgeattn.errors import BundleError, DeviceError, UnsafeModelError
from edgeattn.files import sync
from edgeattn.targets.on_device.file_store import FileStore

CURRENT, RECORD, REPORT = "current", "record.json", "report.json"
VERSION = re.compile(r"(\d{4,})-([0-9a-f]{12})")


@dataclass(frozen=True)
class Versions:
    """The versions under ``root``."""

    root: Path

    @property
    def store(self) -> FileStore:
        return FileStore(self.root)

    def folder(self, version: str) -> Path:
        if not VERSION.fullmatch(version):
            raise DeviceError(f"Not a version: {version[:80]!r}.")
        return self.root / "versions" / version

    def bundle(self, version: str) -> Path:
        return self.folder(version) / "bundle"

    def lock(self, timeout: float = 0.0) -> IO[bytes]:
        """Lock ``root`` until the returned file is closed or this process ends.

        ``timeout`` is in seconds: a deployment that was just cut off may still be ending. Raises
        :class:`DeviceError` if another process holds the lock.
        """
        import fcntl
        import time

        self.root.mkdir(parents=True, exist_ok=True)
        file = (self.root / "lock").open("ab")
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return file
            except OSError as error:
                if time.monotonic() < deadline:
                    time.sleep(0.2)
                    continue
                file.close()
                raise DeviceError(
                    f"Another deployment to {self.root} is in progress.",
                    hint="Try again later. The lock of a lost connection ends within five minutes.",
                ) from error

    def current(self) -> str | None:
        """The version that serves; :class:`DeviceError` if ``current`` is not a symbolic link."""
        link = self.root / CURRENT
        if not link.is_symlink():
            if link.exists():
                raise DeviceError(
                    f"{link} is not a symbolic link, so it was not created by a deployment.",
                    hint="Move it away, or choose another folder with --to.",
                )
            return None
        version = link.readlink().parent.name
        return version if VERSION.fullmatch(version) else None

    def created(self) -> int | None:
        """When the bundle that serves was converted; None if that is not known."""
        version = self.current()
        try:
            return None if version is None else read_manifest(self.bundle(version)).created
        except BundleError:
            # A damaged version must not prevent that another one replaces it.
            return None

    def all(self) -> list[str]:
        """All versions, oldest first."""
        names = (path.name for path in self.root.glob("versions/*"))
        return sorted((name for name in names if VERSION.fullmatch(name)), key=_number)

    def history(self) -> Iterator[str]:
        """The version that serves, the one that served before it, and so on."""
        version, visited = self.current(), set[str]()
        while version is not None and version not in visited and self.folder(version).is_dir():
            yield version
            visited.add(version)
            version = self.record(version).get("previous")

    def record(self, version: str) -> dict[str, Any]:
        """A version's ``record.json``, or an empty one if it cannot be read."""
        try:
            data = json.loads((self.folder(version) / RECORD).read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def add(self, files: Mapping[str, str]) -> str:
        """The version of ``files`` (path: SHA-256), all of which must be in the store.

        An intact version of the same files is reused if it is the current one or was left by an
        interrupted deployment; otherwise a new version is created.
        """
        digest, current = files[MANIFEST], self.current()
        for version in ([current] if current else []) + self.all():
            if not version.endswith(digest[:12]) or self.record(version).get("files") != files:
                continue
            if version != current and version in self.history():
                continue
            if self._is_intact(version):
                if version != current:
                    self._write_record(self.folder(version), files)
                return version
        number = max(map(_number, self.all()), default=0) + 1
        version = f"{number:04d}-{digest[:12]}"
        temporary = self._empty_temporary()
        self.store.assemble(temporary / "bundle", files)
        self._write_record(temporary, files)
        folder = self.folder(version)
        folder.parent.mkdir(exist_ok=True)
        temporary.rename(folder)
        sync(folder.parent)
        Bundle.open(folder / "bundle")
        return version

    def _empty_temporary(self) -> Path:
        """The folder of versions that are incomplete, without any."""
        temporary = self.root / "aside"
        shutil.rmtree(temporary, ignore_errors=True)
        return temporary

    def _is_intact(self, version: str) -> bool:
        try:
            Bundle.open(self.bundle(version))
        except (BundleError, UnsafeModelError):
            return False
        return True

    def _write_record(self, folder: Path, files: Mapping[str, str]) -> None:
        write_json(folder / RECORD, {"files": dict(files), "previous": self.current()})

    def switch(self, version: str) -> None:
        """Make ``version`` the current one."""
        # Relative, so that the folder can be moved or mounted under another path.
        target = Path("versions") / version / "bundle"
        link = self.root / f".{CURRENT}"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        link.rename(self.root / CURRENT)
        sync(self.root)

    def remove_current(self) -> None:
        """Let no version serve, as before the first one."""
        (self.root / CURRENT).unlink(missing_ok=True)
        sync(self.root)

    def previous(self) -> tuple[str, str]:
        """The version that serves, and the one that served before it.

        Raises :class:`DeviceError` if there is none.
        """
        history = list(self.history())
        if len(history) < 2:
            raise DeviceError(
                f"{self.root} has no earlier version.",
                hint="Deploy another bundle: edgeattn deploy BUNDLE HOST",
            )
        return history[0], history[1]

    def roll_back(self, manifest: str | None = None) -> tuple[str, str]:
        """Make the previous version the current one; returns the old and the new current version.

        Raises :class:`DeviceError` if there is no previous version and :class:`BundleError` if its
        files are damaged, or the SHA-256 of its manifest is not ``manifest``.
        """
        before, after = self.previous()
        bundle = Bundle.open(self.bundle(after))
        if manifest not in (None, bundle.file_hashes()[MANIFEST]):
            raise BundleError(f"The manifest of {after} has changed.")
        self.switch(after)
        return before, after

    def prune(self, keep: int) -> tuple[str, ...]:
        """Remove all but the last ``keep`` versions that served, and files that none of them has.

        Returns the removed versions.
        """
        retained = list(self.history())[: max(keep, 1)]
        removed = tuple(name for name in self.all() if name not in retained)
        for name in removed:
            # Renamed first, so that an interruption leaves no incomplete version.
            temporary = self._empty_temporary()
            self.folder(name).rename(temporary)
            shutil.rmtree(temporary)
        self._empty_temporary()
        self.store.prune(
            digest for name in retained for digest in self.record(name).get("files", {}).values()
        )
        return removed


def _number(version: str) -> int:
    return int(version.partition("-")[0])


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Replace a JSON file atomically and sync it to disk."""
    # A fixed name: the next deployment overwrites what a power failure leaves.
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync(path.parent)
