"""A bundle as a single zip file. Equal bundles give equal bytes.

``Bundle.open`` accepts a packed bundle instead of a folder. :mod:`edgeattn.bundle.unpack` checks
it before anything is written: it may hold only the manifest, the files that the manifest lists and
a signature, each once, stored without compression (so that nothing grows), as regular files and
under paths inside the bundle.
"""

import shutil
import stat
import zipfile
from pathlib import Path

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, SIGNATURE
from edgeattn.bundle.unpack import SUFFIX
from edgeattn.errors import OutputError
from edgeattn.files import atomic_write

# The earliest date of the zip format: equal bundles must give equal bytes at any time.
EARLIEST_DATE = (1980, 1, 1, 0, 0, 0)


def pack(bundle: Bundle, target: Path, *, force: bool = False) -> None:
    """Write ``bundle`` to the zip file ``target``.

    Raises :class:`OutputError` if ``target`` exists (without ``force``), is not named ``*.zip`` or
    cannot be written.
    """
    if target.exists() and (not force or not target.is_file()):
        raise OutputError(
            f"The output file exists: {target}", hint="Replace it with --force, or use -o FILE."
        )
    if target.suffix != SUFFIX:
        raise OutputError(f"A packed bundle is a {SUFFIX} file, not {target.name}.")
    signature = [SIGNATURE] if (bundle.path / SIGNATURE).is_file() else []
    names = [MANIFEST, *signature, *sorted(bundle.manifest.hashes)]
    with (
        atomic_write(target, hint="Choose another file with -o FILE.") as file,
        zipfile.ZipFile(file, "w") as archive,
    ):
        for name in names:
            entry = zipfile.ZipInfo(name, EARLIEST_DATE)
            entry.create_system = 3  # Unix, on every system
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.file_size = (bundle.path / name).stat().st_size
            with (bundle.path / name).open("rb") as source, archive.open(entry, "w") as member:
                shutil.copyfileobj(source, member)
