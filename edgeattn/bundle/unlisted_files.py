"""Files in a bundle's folder that its manifest does not list."""

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from edgeattn.bundle.manifest import MANIFEST, SIGNATURE
from edgeattn.errors import BundleError, UnsafeModelError

# Reports, tables and notes that people keep beside the manifest. No runtime loads them as a model
# or as its weights.
DOCUMENTS = {".csv", ".html", ".json", ".log", ".md", ".pdf", ".png", ".svg", ".txt", ".xml"}
# Temporary files of edgeattn itself and those of file managers and network file systems.
_HIDDEN = re.compile(r"\..*edgeattn|\.DS_Store|\._.*|\.nfs[0-9a-f]+|Thumbs\.db|desktop\.ini")


def refuse_unlisted_files(folder: Path, listed: Iterable[str]) -> None:
    """Raise :class:`UnsafeModelError` if the bundle in ``folder`` has files that are not its own.

    Its own files are the manifest, its signature and the ``listed`` paths. Documents are accepted
    in the folder itself, but not in folders below. A link is a file, wherever it leads. Raises
    :class:`BundleError` if a folder cannot be read.
    """
    own = {MANIFEST, SIGNATURE, *(str(PurePosixPath(path)) for path in listed)}
    unlisted = sorted(path for path in _files(folder) if path not in own and not _is_harmless(path))
    if unlisted:
        more = f" and {len(unlisted) - 3:,} more" if len(unlisted) > 3 else ""
        raise UnsafeModelError(
            f"The bundle {folder} was refused: its manifest does not list "
            f"{', '.join(unlisted[:3])}{more}.",
            hint="Move files that do not belong to it out of its folder.",
        )


def _files(folder: Path) -> Iterable[str]:
    """The paths of all files and links below ``folder``, relative to it."""

    def fail(error: OSError) -> None:
        raise BundleError(f"{error.filename} cannot be read: {error.strerror}.") from error

    for parent, folders, names in os.walk(folder, onerror=fail):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]  # noqa: PTH114, PTH118
        for name in (*names, *links):
            yield (Path(parent) / name).relative_to(folder).as_posix()


def _is_harmless(path: str) -> bool:
    first, *below = PurePosixPath(path).parts
    if _HIDDEN.fullmatch(first):
        return True
    return not below and PurePosixPath(first).suffix.lower() in DOCUMENTS
