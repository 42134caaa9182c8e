"""Bundles written aside and renamed when they are complete."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgeattn.errors import OutputError

if TYPE_CHECKING:
    pass
from edgeattn.bundle.manifest import MANIFEST


def check_target(target: Path, *, force: bool) -> None:
    """Whether a bundle may be written to ``target``, asked before any work is done."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise OutputError(
            f"{target} is there and is not a folder.", hint="Choose another with -o DIR."
        )
    if not target.exists():
        return
    if not force:
        raise OutputError(
            f"The output folder exists: {target}", hint="Replace it with --force, or use -o DIR."
        )
    if any(target.iterdir()) and not (target / MANIFEST).is_file():
        raise OutputError(
            f"{target} is not a bundle: --force replaces bundles and nothing else.",
            hint="Choose another with -o DIR.",
        )


@contextlib.contextmanager
def writing(target: Path, *, force: bool = False) -> Iterator[Path]:
    """A folder beside ``target`` to write in, renamed to it at the end.

    Whatever ends the work early, a full disk and Ctrl-C among it, leaves ``target`` as it was and
    nothing beside it.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100 - resolve() would follow links
    check_target(target, force=force)
    parents = [folder for folder in target.parents if not folder.exists()]
    aside: Path | None = None
    try:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        except OSError as error:
            raise OutputError(f"Cannot write to {target.parent}: {error.strerror}") from error
        try:
            yield aside
            aside.chmod(0o777 & ~umask())
            _replace(aside, target)
        except OSError as error:
            raise OutputError(
                f"Cannot write the bundle {target}: {error.strerror or error}",
                hint="Nothing was written. Free some space, or choose another place with -o DIR.",
            ) from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
        # The parents that were made for it go with it; those that hold something stay.
        with contextlib.suppress(OSError):
            for folder in parents:
                folder.rmdir()


def _replace(aside: Path, target: Path) -> None:
    if not target.exists():
        aside.rename(target)
        return
    # Two folders cannot be swapped in one step everywhere: the old one is kept until the new
    # one stands.
    keep = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    old = keep / "old"
    try:
        target.rename(old)
        aside.rename(target)
    finally:
        # Not for errors only: Ctrl-C between the two must not cost the old bundle.
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(keep, ignore_errors=True)


def umask() -> int:
    """The permissions that this process takes off what it makes."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
