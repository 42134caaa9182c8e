"""New bundles: written to a temporary folder that is renamed when it is complete."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from edgeattn.bundle.lengths import bundles_by_length
from edgeattn.bundle.manifest import MANIFEST
from edgeattn.errors import OutputError
from edgeattn.files import atomic_folder

_OTHER_FOLDER = "Choose another folder with -o DIR."


def check_new_bundle(target: Path, *, force: bool) -> None:
    """Raise :class:`OutputError` if :func:`new_bundle` would refuse to write to ``target``."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise OutputError(f"{target} exists and is not a folder.", hint=_OTHER_FOLDER)
    if not target.exists():
        return
    if not force:
        raise OutputError(
            f"The output folder exists: {target}", hint="Replace it with --force, or use -o DIR."
        )
    is_bundle = (target / MANIFEST).is_file() or bundles_by_length(target)
    if any(target.iterdir()) and not is_bundle:
        raise OutputError(
            f"{target} is not a bundle, and --force replaces only bundles.", hint=_OTHER_FOLDER
        )


@contextlib.contextmanager
def new_bundle(target: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``target`` when the block ends without an error.

    After an error, a full disk or Ctrl-C, ``target`` is unchanged and nothing else remains. Raises
    :class:`OutputError` if ``target`` exists (with ``force``: and is not a bundle), cannot be
    written, or is being written by another process.
    """
    check_new_bundle(target, force=force)
    try:
        with atomic_folder(target) as folder:
            # Another process may have written it before it was reserved, or by other means since.
            check_new_bundle(target, force=force)
            yield folder
            check_new_bundle(target, force=force)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise OutputError(
            f"Cannot write the bundle {target}: {error.strerror or error}",
            hint="Free some space, or choose another folder with -o DIR."
            if full
            else _OTHER_FOLDER,
        ) from error
