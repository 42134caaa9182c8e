"""A bundle as a single file: a zip of stored files, the same bytes every time.

``Bundle.open`` takes such a file wherever it takes a folder. It is audited before anything of it is
written: what it lists must be the manifest, what the manifest lists and a signature, stored and not
compressed (so that no file grows on unpacking), plain files, each once, none outside. It is
unpacked once, into a folder of the cache that is named by the hash of the whole file.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zipfile
from pathlib import Path

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, named
from edgeattn.bundle.signing import SIGNATURE
from edgeattn.bundle.writer import umask
from edgeattn.errors import OutputError

SUFFIX = ".zip"
# The first moment that a zip can tell: when it was made is none of its content.
MOMENT = (1980, 1, 1, 0, 0, 0)
MAX_FILES = 1000
HINT = "Pack the bundle again with: edgeattn pack BUNDLE -o model.edge.zip"


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
    return named(bundle.manifest)
