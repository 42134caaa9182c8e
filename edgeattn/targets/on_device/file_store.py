"""On the device: files stored by their SHA-256, received in pieces, and folders assembled of them.

    ROOT/objects/SHA256    complete files
    ROOT/partial/SHA256    files received in part

A file is renamed to an object once its hash is correct and it is on disk. An interrupted transfer
resumes at the next attempt.
"""

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeattn.bundle.manifest import sha256
from edgeattn.errors import DeviceError
from edgeattn.files import sync

# Bytes per message: progress is visible on a slow connection, and a fast one is used well.
PIECE_SIZE = 2**18
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileStore:
    """The files under ``root``, which is created by the first write."""

    root: Path

    def path(self, digest: str) -> Path:
        """Where the complete file with this SHA-256 is stored."""
        return self.root / "objects" / check_digest(digest)

    def partial_path(self, digest: str) -> Path:
        """Where this file is stored until it is complete."""
        return self.root / "partial" / check_digest(digest)

    def missing(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Those of the files in ``sizes`` (SHA-256: bytes) that are incomplete.

        The values are the bytes received so far. Existing files are hashed again, because SD cards
        can corrupt data; a corrupt one is removed and counts as missing.
        """
        offsets = {}
        for digest, size in sizes.items():
            file, partial = self.path(digest), self.partial_path(digest)
            if file.is_file():
                if sha256(file) == digest:
                    continue
                file.unlink()
            received = partial.stat().st_size if partial.is_file() else 0
            if received >= size:
                # Either corrupt, or the last attempt was interrupted before the rename.
                if received == size and sha256(partial) == digest:
                    self._complete(digest)
                    continue
                partial.unlink(missing_ok=True)
                received = 0
            offsets[digest] = received
        return offsets

    def add_piece(self, digest: str, offset: int, piece: bytes, size: int) -> bool:
        """Append ``piece`` at ``offset``; returns whether all ``size`` bytes are stored.

        Raises :class:`DeviceError` if ``offset`` is not the end of what was received, and if the
        hash of the complete file is wrong, which removes it.
        """
        partial = self.partial_path(digest)
        partial.parent.mkdir(parents=True, exist_ok=True)
        received = partial.stat().st_size if partial.exists() else 0
        if received != offset:
            raise DeviceError(
                f"A piece of a file starts at byte {offset}, but {received} bytes were received.",
                hint="Run the same command again to resume.",
            )
        with partial.open("ab") as file:
            file.write(piece)
            if offset + len(piece) < size:
                return False
            file.flush()
            os.fsync(file.fileno())
        if sha256(partial) != digest:
            partial.unlink()
            raise DeviceError(
                f"A file was damaged in transfer: its SHA-256 is not {digest[:12]}...",
                hint="Run the same command again to copy it again.",
            )
        self._complete(digest)
        return True

    def _complete(self, digest: str) -> None:
        file, partial = self.path(digest), self.partial_path(digest)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.chmod(0o444)
        partial.rename(file)
        sync(file.parent)

    def assemble(self, folder: Path, files: Mapping[str, str]) -> None:
        """Create ``folder`` from files (path: SHA-256), as hard links or copies, synced to disk."""
        folders = {folder}
        folder.mkdir(parents=True)
        for relative, digest in files.items():
            path = folder / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            folders.update(parent for parent in path.parents if folder in parent.parents)
            try:
                os.link(self.path(digest), path)
            except FileNotFoundError:
                raise
            except OSError:
                shutil.copyfile(self.path(digest), path)
                sync(path)
        for each in sorted(folders, reverse=True):
            sync(each)

    def prune(self, digests: Iterable[str]) -> None:
        """Remove all files except ``digests``, and everything received in part."""
        retained = set(digests)
        for file in self.root.glob("objects/*"):
            if file.name not in retained:
                file.unlink()
        for file in self.root.glob("partial/*"):
            file.unlink()


def check_digest(digest: str) -> str:
    """``digest`` unchanged; raises :class:`DeviceError` if it is not a hexadecimal SHA-256."""
    if not _DIGEST.fullmatch(digest):
        raise DeviceError(f"Not a SHA-256: {digest[:80]!r}.")
    return digest
