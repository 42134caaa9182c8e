"""On the device: the versions of a bundle, of which one serves.

    ROOT/versions/0002-9f86d081884c/bundle/      a bundle
    ROOT/versions/0002-9f86d081884c/record.json  its files, and the version that served before it
    ROOT/versions/0002-9f86d081884c/report.json  what was found when it was judged here
    ROOT/current -> versions/0002-9f86d081884c/bundle

``current`` is replaced by a rename: it names the old version until it names the new one, and at no
moment nothing. A version's folder, too, is made aside and renamed when the disk has it. So whatever
ends the work leaves what served serving, and what lies about is removed by the next deployment.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST
from edgeattn.errors import BundleError, DeviceError
from edgeattn.files import sync
from edgeattn.targets.on_device.file_store import Store

CURRENT, RECORD, REPORT = "current", "record.json", "report.json"
_VERSION = re.compile(r"(\d{4,})-([0-9a-f]{12})")


@dataclass(frozen=True)
class Versions:
    """The versions under ``root``."""

    root: Path

    @property
    def store(self) -> Store:
        return Store(self.root)

    def folder(self, version: str) -> Path:
        if not _VERSION.fullmatch(version):
            raise DeviceError(f"Not a version: {version[:80]!r}.")
        return self.root / "versions" / version

    def bundle(self, version: str) -> Path:
        return self.folder(version) / "bundle"

    def lock(self, patience: float = 0.0) -> IO[bytes]:
        """Hold ``root`` for this process; it is let go of with the file, or with the process.

        One that was cut off a moment ago may still be ending: ``patience`` is in seconds.
        """
        import fcntl
        import time

        self.root.mkdir(parents=True, exist_ok=True)
        file = (self.root / "lock").open("ab")
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return file
            except OSError as error:
                if time.monotonic() < deadline:
                    time.sleep(0.2)
                    continue
                file.close()
                raise self._locked() from error

    def _locked(self) -> DeviceError:
        return DeviceError(
            f"Another deployment to {self.root} is under way.",
            hint="Wait for it. One whose connection is lost ends within five minutes.",
        )

    def current(self) -> str | None:
        """The version that serves."""
        link = self.root / CURRENT
        if not link.is_symlink():
            if link.exists():
                raise DeviceError(
                    f"{link} is there and is no link: it was not made by a deployment.",
                    hint="Move it away, or choose another folder with --to.",
                )
            return None
        version = link.readlink().parent.name
        return version if _VERSION.fullmatch(version) else None

    def all(self) -> list[str]:
        found = (path.name for path in self.root.glob("versions/*"))
        return sorted((n for n in found if _VERSION.fullmatch(n)), key=lambda n: int(n[:-13]))

    def history(self) -> Iterator[str]:
        """The version that serves, the one that served before it, and so on."""
        version, seen = self.current(), set[str]()
        while version is not None and version not in seen and self.folder(version).is_dir():
            yield version
            seen.add(version)
            version = self.record(version).get("previous")

    def record(self, version: str) -> dict[str, Any]:
        try:
            data = json.loads((self.folder(version) / RECORD).read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def make(self, files: Mapping[str, str]) -> str:
        """A version of ``files`` (path: hash), all of which the store holds, and its name.

        The one that serves where it is of these files, or one that an earlier attempt left.
        """
        digest, serving = files[MANIFEST], self.current()
        for version in ([serving] if serving else []) + self.all():
            if not version.endswith(digest[:12]) or self.record(version).get("files") != files:
                continue
            if version != serving and version in self.history():
                continue
            if self._whole(version):
                if version != serving:
                    self._write_record(self.folder(version), files)
                return version
        numbers = [int(name[:-13]) for name in self.all()]
        version = f"{max(numbers, default=0) + 1:04d}-{digest[:12]}"
        aside = self.root / "aside"
        shutil.rmtree(aside, ignore_errors=True)
        self.store.assemble(aside / "bundle", files)
        self._write_record(aside, files)
        target = self.folder(version)
        target.parent.mkdir(exist_ok=True)
        aside.rename(target)
        sync(target.parent)
        Bundle.open(target / "bundle")
        return version

    def _whole(self, version: str) -> bool:
        try:
            Bundle.open(self.bundle(version))
        except BundleError:
            return False
        return True

    def _write_record(self, folder: Path, files: Mapping[str, str]) -> None:
        write(folder / RECORD, {"files": dict(files), "previous": self.current()})

    def switch(self, version: str) -> None:
        """Let ``version`` serve from now on."""
        # Relative, so that the folder may be moved or seen from elsewhere.
        target = Path("versions") / version / "bundle"
        new = self.root / f".{CURRENT}"
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        new.rename(self.root / CURRENT)
        sync(self.root)

    def roll_back(self) -> tuple[str, str]:
        """Let the version serve that served before, once its files are found whole."""
        history = list(self.history())
        if len(history) < 2:
            raise DeviceError(
                f"{self.root} has no earlier version to go back to.",
                hint="Deploy another bundle: edgeattn deploy BUNDLE HOST",
            )
        Bundle.open(self.bundle(history[1]))
        self.switch(history[1])
        return history[0], history[1]

    def prune(self, keep: int) -> tuple[str, ...]:
        """Remove all but the last ``keep`` versions that served, and files of none of them."""
        kept = list(self.history())[: max(keep, 1)]
        removed = tuple(name for name in self.all() if name not in kept)
        for name in removed:
            # Its name goes first: half a version is never there.
            doomed = self.root / "aside"
            shutil.rmtree(doomed, ignore_errors=True)
            self.folder(name).rename(doomed)
            shutil.rmtree(doomed)
        shutil.rmtree(self.root / "aside", ignore_errors=True)
        self.store.forget(
            digest for name in kept for digest in self.record(name).get("files", {}).values()
        )
        return removed


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file beside ``path`` and rename it; it is on disk when this returns."""
    # A fixed name: what a power failure leaves is overwritten by the next deployment.
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync(path.parent)
