"""A bundle as a single zip file. Equal bundles give equal bytes.

``Bundle.open`` accepts a packed bundle instead of a folder and unpacks it once, into a cache folder
named by its hash, see :mod:`edgeattn.bundle.cache`. It is checked before anything is written: it
may hold only the manifest, the files that the manifest lists and a signature, each once, stored
without compression (so that nothing grows), as regular files and under paths inside the bundle.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, TYPE_CHECKING

from edgeattn.bundle.cache import cache_folder, hold, prune
from edgeattn.bundle.manifest import (
    MALFORMED,
    MANIFEST,
    MAX_MANIFEST,
    MAX_SIGNATURE,
    SIGNATURE,
    Manifest,
)
from edgeattn.bundle.not_a_bundle import not_a_bundle
from edgeattn.bundle.verified_file import read_signature
from edgeattn.errors import BundleError, OutputError, UnsafeModelError
from edgeattn.files import atomic_write, hidden_folder, new_folder, require_new, reserved

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle, SignatureCheck

# The earliest date of the zip format: equal bundles must give equal bytes at any time.
EARLIEST_DATE = (1980, 1, 1, 0, 0, 0)
SUFFIX = ".zip"
MAX_FILES = 1000
_PACK_AGAIN = "Pack the bundle again with: edgeattn pack BUNDLE -o model.edge.zip"


def pack(bundle: Bundle, target: Path, *, force: bool = False) -> None:
    """Write ``bundle`` to the zip file ``target``.

    Raises :class:`OutputError` if ``target`` exists (without ``force``), is not named ``*.zip`` or
    cannot be written, and :class:`BundleError` if a file of the bundle has changed.
    """
    require_new(target, force=force)
    if target.suffix != SUFFIX:
        raise OutputError(f"A packed bundle is a {SUFFIX} file, not {target.name}.")
    own = {MANIFEST: bundle.manifest_bytes()}
    signature = read_signature(bundle.path)
    if signature is not None:
        own[SIGNATURE] = signature
    with (
        atomic_write(target, hint="Choose another file with -o FILE.") as file,
        zipfile.ZipFile(file, "w") as archive,
    ):
        for name in [*own, *sorted(bundle.manifest.hashes)]:
            content = own[name] if name in own else bundle.read(name)
            entry = zipfile.ZipInfo(name, EARLIEST_DATE)
            entry.create_system = 3  # Unix, on every system
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.file_size = len(content)
            with archive.open(entry, "w") as member:
                member.write(content)


def unpack(path: Path, check: SignatureCheck | None = None) -> Path:
    """The folder with the contents of the packed bundle ``path``; unpacked if it is not yet.

    The file is opened once. ``check`` is called with the manifest's bytes before they are parsed.
    Raises :class:`UnsafeModelError` if the file would write outside the folder, grow, or holds
    files that do not belong to a bundle; :class:`BundleError` if it is damaged or no packed bundle.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                entries = _checked_entries(path, archive, file, check)
                return _unpack(path, digest, archive, entries)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise BundleError(f"{path} is not a packed bundle: {error}", hint=_PACK_AGAIN) from error
    except OSError as error:
        raise BundleError(f"{path} cannot be unpacked: {error.strerror or error}") from error


def _checked_entries(
    path: Path, archive: zipfile.ZipFile, file: IO[bytes], check: SignatureCheck | None
) -> list[zipfile.ZipInfo]:
    entries = archive.infolist()
    names = {entry.filename for entry in entries}
    if MANIFEST not in names:
        # Another kind of file, of which nothing is unpacked.
        raise not_a_bundle(path)
    danger = next(_dangers(entries, os.fstat(file.fileno()).st_size), None)
    if danger is not None:
        raise UnsafeModelError(f"{path.name} was refused and nothing was written: {danger}.")
    content = archive.read(MANIFEST)
    if check is not None:
        check(path, content, archive.read(SIGNATURE) if SIGNATURE in names else None)
    try:
        manifest = Manifest.from_json(json.loads(content))
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: the manifest is not UTF-8 text.", hint=_PACK_AGAIN) from error
    except MALFORMED:
        # read_manifest reports the error: it also recognizes newer layouts.
        return [entry for entry in entries if entry.filename == MANIFEST]
    unlisted = sorted(names - set(manifest.hashes) - {MANIFEST, SIGNATURE})
    if unlisted:
        raise UnsafeModelError(
            f"{path.name} was refused: its manifest does not list {', '.join(unlisted[:3])}."
        )
    return entries


def _dangers(entries: list[zipfile.ZipInfo], size: int) -> Iterator[str]:
    if len(entries) > MAX_FILES:
        yield f"it has {len(entries)} files, over {MAX_FILES}"
    names: set[str] = set()
    for entry in entries:
        # The name in the file: zipfile has sanitized entry.filename.
        name = entry.orig_filename
        pure = PurePosixPath(name)
        drive = PureWindowsPath(name).drive
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or drive or "\0" in name:
            yield f"{name!r} is a path outside the bundle"
        if name in names:
            yield f"{name!r} is included twice"
        names.add(name)
        file_type = stat.S_IFMT(entry.external_attr >> 16)
        if name.endswith("/") or file_type not in (0, stat.S_IFREG):
            yield f"{name!r} is not a regular file"
        if entry.flag_bits & 1:
            yield f"{name!r} is encrypted"
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            yield f"{name!r} is compressed, which packed bundles never are"
        limit = {MANIFEST: MAX_MANIFEST, SIGNATURE: MAX_SIGNATURE}.get(name, size)
        if entry.file_size > limit:
            yield f"{name!r} declares a size of {entry.file_size:,} bytes, over {limit:,}"
    # Entries that share bytes would be written more than once.
    if sum(entry.file_size for entry in entries) > size:
        yield "the declared sizes of its files exceed its own size"


def _unpack(
    path: Path, digest: str, archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]
) -> Path:
    name = path.name.removesuffix(SUFFIX) or path.name
    root = cache_folder()
    hold(root, digest)
    target = root / digest / name
    if _is_unpacked(target, entries) and not hidden_folder(target).exists():
        return target
    with reserved(target, wait=True) as workspace:
        # Another process may have unpacked it in the meantime.
        if not _is_unpacked(target, entries):
            with new_folder(workspace, target) as folder:
                for entry in entries:
                    file = folder / entry.filename
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(entry) as source, file.open("xb") as member:
                        shutil.copyfileobj(source, member)
    prune(root)
    return target


def _is_unpacked(target: Path, entries: list[zipfile.ZipInfo]) -> bool:
    return (target / MANIFEST).is_file() and all(_has_size(target, entry) for entry in entries)


def _has_size(target: Path, entry: zipfile.ZipInfo) -> bool:
    """Whether the entry was unpacked with its full size; ``Bundle.open`` compares the hashes."""
    file = target / entry.filename
    return file.is_file() and not file.is_symlink() and file.stat().st_size == entry.file_size
