"""A bundle as a single file: a zip of stored files, the same bytes every time.

``Bundle.open`` takes such a file wherever it takes a folder. It is audited before anything of it is
written: what it lists must be the manifest, what the manifest lists and a signature, stored and not
compressed (so that no file grows on unpacking), plain files, each once, none outside. It is
unpacked once, into a folder of the cache that is named by the hash of the whole file.
"""

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

from edgeattn.bundle import MANIFEST, MAX_MANIFEST, Bundle, Manifest, sha256, umask
from edgeattn.errors import BundleError, OutputError, UnsafeModelError
from edgeattn.signing import MAX_SIGNATURE, SIGNATURE

SUFFIX = ".zip"
# The first moment that a zip can tell: when it was made is none of its content.
MOMENT = (1980, 1, 1, 0, 0, 0)
MAX_FILES = 1000
_HINT = "Pack the bundle again with: edgeattn pack BUNDLE -o model.edge.zip"


def pack(bundle: Bundle, target: Path, *, force: bool = False) -> None:
    """Write ``bundle`` to the file ``target``, aside and renamed.

    Raises :class:`BundleError` where a file is not what the manifest says, :class:`OutputError`
    where the file is there already or cannot be written.
    """
    bundle.verify()
    if target.exists() and (not force or not target.is_file()):
        raise OutputError(
            f"The output file exists: {target}", hint="Replace it with --force, or use -o FILE."
        )
    if target.suffix != SUFFIX:
        raise OutputError(f"A packed bundle is a {SUFFIX} file, not {target.name}.")
    names = [MANIFEST, *sorted(listed(bundle))]
    if (bundle.path / SIGNATURE).is_file():
        names.insert(1, SIGNATURE)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.absolute().parent)
        aside = Path(name)
        try:
            with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w") as archive:
                for relative in names:
                    entry = zipfile.ZipInfo(relative, MOMENT)
                    entry.create_system = 3  # Unix, wherever this is written
                    entry.external_attr = (stat.S_IFREG | 0o644) << 16
                    entry.file_size = (bundle.path / relative).stat().st_size
                    file_there = bundle.path / relative
                    with file_there.open("rb") as source, archive.open(entry, "w") as written:
                        shutil.copyfileobj(source, written)
            aside.chmod(0o666 & ~umask())
            aside.rename(target)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"Cannot write {target}: {error.strerror or error}", hint="Choose another with -o FILE."
        ) from error


def listed(bundle: Bundle) -> set[str]:
    """The files that a bundle's manifest names."""
    return _named(bundle.manifest)


def _named(manifest: Manifest) -> set[str]:
    return {item.path for item in manifest.artifacts} | {str(manifest.reference["path"])}


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
        raise BundleError(f"{path} is no packed bundle: {error}", hint=_HINT) from error
    except OSError as error:
        raise BundleError(f"{path} cannot be unpacked: {error.strerror or error}") from error


def _audited(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    entries = archive.infolist()
    size = path.stat().st_size
    for why in _dangers(entries, size):
        raise UnsafeModelError(f"{path.name} was refused, nothing of it was written: {why}.")
    names = {entry.filename for entry in entries}
    if MANIFEST not in names:
        raise BundleError(f"{path} is no packed bundle: it has no {MANIFEST}.", hint=_HINT)
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
            raise BundleError(f"{path}: its manifest is no text.", hint=_HINT) from error
        return [entry for entry in entries if entry.filename == MANIFEST]
    more = names - _named(manifest) - {MANIFEST, SIGNATURE}
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
