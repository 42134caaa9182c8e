"""Files and folders that are written completely or not at all.

All functions write beside the target and rename at the end. If an error ends the work early (a
full disk or Ctrl-C, for example), the target is unchanged and nothing else remains.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from edgeattn.errors import OutputError


@contextlib.contextmanager
def atomic_write(
    target: Path, *, parents: bool = False, hint: str | None = None
) -> Iterator[IO[bytes]]:
    """Yield a binary file that replaces ``target`` when the block ends without an error.

    With ``parents``, missing folders are created. Raises :class:`OutputError`, with ``hint``, if
    the file cannot be written.
    """
    folder = target.absolute().parent
    try:
        if parents:
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            prefix=f".{target.name}.", dir=folder, delete=False
        ) as file:
            temporary = Path(file.name)
            try:
                yield file
                file.flush()
                temporary.chmod(0o666 & ~_umask())
                temporary.rename(target)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot write {target}: {error.strerror or error}", hint=hint) from error


def require_new(target: Path, *, force: bool) -> None:
    """Raise :class:`OutputError` if the file exists and is not to be replaced by ``force``."""
    if target.exists() and (not force or not target.is_file()):
        raise OutputError(
            f"The output file exists: {target}", hint="Replace it with --force, or use -o FILE."
        )


def write_text(target: Path, text: str) -> None:
    """Write a UTF-8 text file; see :func:`atomic_write`."""
    with atomic_write(target) as file:
        file.write(text.encode())


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces ``target`` when the block ends without an error.

    Missing parents of ``target`` are created, and removed again after an error. Raises
    :class:`OSError` if the folder cannot be created or renamed.
    """
    target = target.absolute()
    parents = [folder for folder in target.parents if not folder.exists()]
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        _replace(temporary, target)
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        # Folders that hold something stay.
        with contextlib.suppress(OSError):
            for folder in parents:
                folder.rmdir()


def _replace(folder: Path, target: Path) -> None:
    if not target.exists():
        folder.rename(target)
        return
    # No portable call swaps two folders: keep the old one until the new one is in place.
    backup = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    old = backup / "old"
    try:
        target.rename(old)
        folder.rename(target)
    finally:
        # Also after Ctrl-C between the two renames.
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(backup, ignore_errors=True)


def sync(path: Path) -> None:
    """Write a file, or the names in a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        # FAT, among others, does not support this for folders.
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
