"""A verdict as a page that a team attaches to a release: one ``.html`` file, nothing loaded."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgeattn.bundle import umask
from edgeattn.errors import OutputError

if TYPE_CHECKING:
    from edgeattn.bundle import Bundle
    from edgeattn.validation import Report


def write_html(path: Path, bundle: Bundle, report: Report) -> None:
    """Write the page for ``report`` to ``path``.

    Raises :class:`UsageError` where the plotting library is missing, :class:`OutputError` where the
    file cannot be written.
    """
    from edgeattn.report.page import render

    write_aside(path, render(bundle, report))


def write_aside(path: Path, text: str) -> None:
    """Write and rename, so that no half of a page is ever there."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).chmod(0o666 & ~umask())
            Path(name).rename(path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}") from error
