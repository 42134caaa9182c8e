"""The cache of unpacked bundles: one folder each, named by the SHA-256 of the packed bundle.

    ~/.cache/edgeattn/unpacked/SHA256/NAME/    the unpacked bundle
    ~/.cache/edgeattn/unpacked/SHA256/.lock    locked by every process that uses it

When a bundle is unpacked, those that no process uses are removed if they were last opened more than
:data:`MAX_AGE_S` ago, and then the longest unused ones until the others take at most
:data:`MAX_BYTES`.
"""

import atexit
import contextlib
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

from edgeattn.files import is_at, make_folder, try_lock

MAX_BYTES = 2**30
MAX_AGE_S = 30 * 24 * 3600
_LOCK = ".lock"
_ENTRY = re.compile(r"[0-9a-f]{64}")

# Locks by folder, released when this process ends: a model may be loaded again at any time.
_held: dict[Path, int] = {}


def cache_folder() -> Path:
    """``~/.cache/edgeattn/unpacked``, or a folder that is deleted when this process ends."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = root / "edgeattn" / "unpacked"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):
        temporary = Path(tempfile.mkdtemp(prefix="edgeattn-"))
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        return temporary


def hold(root: Path, digest: str) -> None:
    """Create a bundle's folder, and prevent its removal until this process ends."""
    entry = root / digest
    while True:
        make_folder(entry)
        try:
            lock = os.open(entry / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:  # another process has just removed it
            continue
        try_lock(lock, shared=True, wait=True)
        if not is_at(lock, entry / _LOCK):
            os.close(lock)
            continue
        os.utime(lock)
        previous = _held.get(entry)
        _held[entry] = lock
        if previous is not None:
            os.close(previous)
        return


def prune(root: Path) -> None:
    """Remove bundles that no process uses: those that are too old, and those that are too many."""
    entries = [path for path in root.iterdir() if _ENTRY.fullmatch(path.name)]
    used = {entry: _last_use(entry) for entry in entries}
    total = sum(map(_size, entries))
    for entry in sorted(entries, key=used.__getitem__):
        if total <= MAX_BYTES and time.time() - used[entry] <= MAX_AGE_S:
            break
        size = _size(entry)
        if _remove_unused(entry):
            total -= size


def _remove_unused(entry: Path) -> bool:
    with contextlib.suppress(OSError):
        lock = os.open(entry / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            if try_lock(lock):
                for path in entry.iterdir():
                    if path.name != _LOCK:
                        shutil.rmtree(path)
                (entry / _LOCK).unlink()
                entry.rmdir()
                return True
        finally:
            os.close(lock)
    return False


def _last_use(entry: Path) -> float:
    for path in (entry / _LOCK, entry):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def _size(entry: Path) -> int:
    total = 0
    # Other threads and processes may unpack or remove folders meanwhile: walk() leaves those out.
    for folder, _, files in os.walk(entry):
        for name in files:
            with contextlib.suppress(OSError):
                total += Path(folder, name).lstat().st_size
    return total
