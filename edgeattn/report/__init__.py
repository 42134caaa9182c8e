"""A verdict as a page that a team attaches to a release: one ``.html`` file, nothing loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.files import write_text

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.validation.validate import Report


def write_html(
    path: Path,
    bundle: Bundle,
    report: Report,
    *,
    bench: Mapping[str, Any] | None = None,
    vocabulary: Sequence[str] | None = None,
    explanations: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write the page for ``report`` to ``path``.

    ``bench`` is the document of ``edgeattn bench --json``, ``vocabulary`` the words that a text's
    numbers stand for, ``explanations`` are paragraphs by the label of an artifact. Raises
    :class:`UsageError` where the plotting library is missing, :class:`OutputError` where the file
    cannot be written.
    """
    from edgeattn.report.page import render

    text = render(bundle, report, bench=bench, vocabulary=vocabulary, explanations=explanations)
    write_text(path, text)


def require_libraries() -> None:
    """Check that the libraries of the extra ``report`` are installed.

    Raises :class:`UsageError` if Matplotlib or Jinja2 is missing.
    """
    from edgeattn.plots.style import require

    require("matplotlib", "jinja2", purpose="The HTML report", extra="report")
