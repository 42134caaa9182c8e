"""On the device: files by their hash, received in pieces, and folders made of them.

    ROOT/objects/SHA256    files that are whole
    ROOT/partial/SHA256    what came so far of one that is not

A file becomes an object by a rename, once its hash is that of its name and the disk has it. What is
cut off in between is gone on with at the next attempt.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeattn.bundle.manifest import sha256
from edgeattn.errors import DeviceError
from edgeattn.files import sync

# Bytes of a file in one message: little enough for a slow line, enough for a fast one.
PIECE = 2**18
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Store:
    """The files under ``root``, which is made when it is first written to."""

    root: Path

    def object(self, digest: str) -> Path:
        return self.root / "objects" / _checked(digest)

    def partial(self, digest: str) -> Path:
        return self.root / "partial" / _checked(digest)

    def lacking(self, files: Mapping[str, int]) -> dict[str, int]:
        """Those of ``files`` (hash: size) that are not here, and how much of each is.

        What is here is hashed again: memory cards forget. A file that is not what it was is
        removed and lacking.
        """
        found = {}
        for digest, size in files.items():
            file, part = self.object(digest), self.partial(digest)
            if file.is_file():
                if sha256(file) == digest:
                    continue
                file.unlink()
            came = part.stat().st_size if part.is_file() else 0
            if came >= size:
                # Whole and wrong, or it would have been renamed; or cut off before it was.
                if came == size and sha256(part) == digest:
                    self._keep(digest)
                    continue
                part.unlink(missing_ok=True)
                came = 0
            found[digest] = came
        return found

    def add(self, digest: str, offset: int, piece: bytes, size: int) -> bool:
        """Write ``piece`` of a file at ``offset``; whether the file, of ``size`` bytes, is whole.

        :class:`DeviceError` where a whole file's hash is another: it is removed.
        """
        part = self.partial(digest)
        part.parent.mkdir(parents=True, exist_ok=True)
        came = part.stat().st_size if part.exists() else 0
        if came != offset:
            raise DeviceError(f"A piece of a file came for byte {offset}, and {came} are there.")
        with part.open("ab") as file:
            file.write(piece)
            if offset + len(piece) < size:
                return False
            file.flush()
            os.fsync(file.fileno())
        if sha256(part) != digest:
            part.unlink()
            raise DeviceError(
                f"A file arrived damaged: its SHA-256 is not {digest[:12]}...",
                hint="Run the same command again: the file is copied anew.",
            )
        self._keep(digest)
        return True

    def _keep(self, digest: str) -> None:
        file, part = self.object(digest), self.partial(digest)
        file.parent.mkdir(parents=True, exist_ok=True)
        part.chmod(0o444)
        part.rename(file)
        sync(file.parent)

    def assemble(self, folder: Path, files: Mapping[str, str]) -> None:
        """Make ``folder`` of ``files`` (path in it: hash), on the disk when this returns.

        Hard links where the file system has them, or else copies.
        """
        made = {folder}
        folder.mkdir(parents=True)
        for relative, digest in files.items():
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            made.update(f for f in target.parents if folder in f.parents)
            try:
                os.link(self.object(digest), target)
            except FileNotFoundError:
                raise
            except OSError:
                shutil.copyfile(self.object(digest), target)
                sync(target)
        for each in sorted(made, reverse=True):
            sync(each)

    def forget(self, kept: Iterable[str]) -> None:
        """Remove what is not among ``kept``, and what came in part."""
        wanted = set(kept)
        for file in self.root.glob("objects/*"):
            if file.name not in wanted:
                file.unlink()
        for file in self.root.glob("partial/*"):
            file.unlink()


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _checked(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise DeviceError(f"Not a SHA-256: {digest[:80]!r}.")
    return digest
