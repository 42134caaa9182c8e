"""The SHA-256 of a model: one file, or a folder of files."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

from edgeattn.errors import UnsafeModelError

MAX_FILES = 10_000  # in a folder
_BLOCK = 1 << 20


def digest(path: Path) -> str:
    """The SHA-256 of a file, or of a folder's files with their names, sorted by name.

    Raises :class:`UnsafeModelError` as :func:`model_files` does.
    """
    total = hashlib.sha256()
    for file in model_files(path):
        if path.is_dir():
            size = file.stat().st_size
            total.update(f"{file.relative_to(path).as_posix()}\0{size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                total.update(block)
    return total.hexdigest()


def model_files(path: Path) -> Iterator[Path]:
    """Yield the file, or the files of a folder.

    Raises :class:`UnsafeModelError` for a folder with links or with over :data:`MAX_FILES` files.
    """
    if not path.is_dir():
        yield path
        return
    # No more than are allowed: the folder may be any part of the disk.
    files = sorted(itertools.islice(path.rglob("*"), MAX_FILES + 2))
    for count, file in enumerate(files):
        if file.is_symlink() or count > MAX_FILES:
            problem = f"{file.name!r} is a link" if file.is_symlink() else "it has too many files"
            raise UnsafeModelError(
                f"Refused the folder {path.name}: {problem}.",
                hint="Pass a folder that contains the files of the model and nothing else.",
            )
        if file.is_file():
            yield file
