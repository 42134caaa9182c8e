"""Packed bundles, audited and then unpacked once into a cache folder."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from edgeattn.bundle.manifest import MANIFEST, MAX_MANIFEST, Manifest, named, sha256
from edgeattn.bundle.pack import HINT, MAX_FILES, SUFFIX
from edgeattn.bundle.signing import MAX_SIGNATURE, SIGNATURE
from edgeattn.errors import BundleError, UnsafeModelError


def unpacked(path: Path) -> Path:
    """The folder that holds what is packed in ``path``, unpacked now or before.

    Raises :class:`UnsafeModelError` for a file that would write elsewhere, grow, or hold what is no
    part of a bundle, :class:`BundleError` for one that is damaged or no packed bundle.
    """
    try:
        digest = sha256(path)
        with zipfile.ZipFile(path) as archive:
            entries = _audited(path, archive)
            return _unpack(path, digest, archive, entries)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise BundleError(f"{path} is no packed bundle: {error}", hint=HINT) from error
    except OSError as error:
        raise BundleError(f"{path} cannot be unpacked: {error.strerror or error}") from error


def _audited(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    entries = archive.infolist()
    size = path.stat().st_size
    for why in _dangers(entries, size):
        raise UnsafeModelError(f"{path.name} was refused, nothing of it was written: {why}.")
    names = {entry.filename for entry in entries}
    if MANIFEST not in names:
        raise BundleError(f"{path} is no packed bundle: it has no {MANIFEST}.", hint=HINT)
    try:
        manifest = Manifest.from_json(json.loads(archive.read(MANIFEST)))
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        # Said again, and better, where the folder is opened: a newer layout has its own message.
        if isinstance(error, UnicodeDecodeError):
            raise BundleError(f"{path}: its manifest is no text.", hint=HINT) from error
        return [entry for entry in entries if entry.filename == MANIFEST]
    more = names - named(manifest) - {MANIFEST, SIGNATURE}
    if more:
        told = ", ".join(sorted(more)[:3])
        raise UnsafeModelError(f"{path.name} was refused: its manifest does not list {told}.")
    return entries


def _dangers(entries: list[zipfile.ZipInfo], size: int) -> Iterator[str]:
    if len(entries) > MAX_FILES:
        yield f"it holds {len(entries)} files, over {MAX_FILES}"
    seen: set[str] = set()
    for entry in entries:
        # As the file has it: what zipfile makes of the name has been mended already.
        name = entry.orig_filename
        pure = PurePosixPath(name)
        drive = PureWindowsPath(name).drive
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or drive or "\0" in name:
            yield f"{name!r} leaves the bundle"
        if name in seen:
            yield f"{name!r} is there twice"
        seen.add(name)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if name.endswith("/") or kind not in (0, stat.S_IFREG):
            yield f"{name!r} is no plain file"
        if entry.flag_bits & 1:
            yield f"{name!r} is encrypted"
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            yield f"{name!r} is compressed, and packed bundles are not"
        limit = {MANIFEST: MAX_MANIFEST, SIGNATURE: MAX_SIGNATURE}.get(name, size)
        if entry.file_size > limit:
            yield f"{name!r} is said to hold {entry.file_size:,} bytes"
    # Files that share their bytes would be written more than once.
    if sum(entry.file_size for entry in entries) > size:
        yield "its files are said to hold more than it does"


def _unpack(
    path: Path, digest: str, archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]
) -> Path:
    name = path.name.removesuffix(SUFFIX) or path.name
    target = _cache() / digest / name
    if (target / MANIFEST).is_file() and all(_whole(target, entry) for entry in entries):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=target.parent))
    try:
        for entry in entries:
            file = aside / entry.filename
            file.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, file.open("xb") as written:
                shutil.copyfileobj(source, written)
        shutil.rmtree(target, ignore_errors=True)
        try:
            aside.rename(target)
        except OSError:
            # Another process was as quick.
            if not (target / MANIFEST).is_file():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def _whole(target: Path, entry: zipfile.ZipInfo) -> bool:
    """Whether it lies there in its size; hashes are compared by whoever uses it, every time."""
    file = target / entry.filename
    return file.is_file() and not file.is_symlink() and file.stat().st_size == entry.file_size


def _cache() -> Path:
    """``~/.cache/edgeattn/unpacked``, or a folder that goes with this process."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = root / "edgeattn" / "unpacked"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):
        passing = Path(tempfile.mkdtemp(prefix="edgeattn-"))
        atexit.register(shutil.rmtree, passing, ignore_errors=True)
        return passing
