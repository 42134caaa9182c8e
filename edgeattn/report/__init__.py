"""The verdict as a self-contained HTML file, as JUnit XML, and the plot of ``edgeattn tune``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from edgeattn.bundle.bundle import Bundle
from edgeattn.files import write_text
from edgeattn.validation.bundle_comparison import BundleComparison
from edgeattn.validation.recommendation import Recommendation
from edgeattn.validation.report import Report


class Parts(TypedDict, total=False):
    """Optional parts of a page.

    ``bench`` is the document that ``edgeattn bench --json`` prints, ``vocabulary`` are the tokens
    of a text model by id, ``explanations`` paragraphs of a diagnosis by the label of the artifact,
    ``recommendation`` the artifact to ship, ``facts`` more values to show by title, such as the
    device and the date, and ``comparison`` what changed from another bundle.
    """

    bench: Mapping[str, Any] | None
    vocabulary: Sequence[str] | None
    explanations: Mapping[str, Sequence[str]] | None
    recommendation: Recommendation | None
    facts: Mapping[str, str] | None
    comparison: BundleComparison | None


def write_html(path: Path, bundle: Bundle, report: Report, **parts: Unpack[Parts]) -> None:
    """Write ``report`` on ``bundle`` to ``path`` as one HTML file that loads nothing.

    Raises :class:`UsageError` if Matplotlib or Jinja2 is not installed, and :class:`OutputError`
    if the file cannot be written.
    """
    require_libraries()
    from edgeattn.report.page import render

    write_text(path, render(bundle, report, **parts))


def require_libraries() -> None:
    """Raise :class:`UsageError` if a library of the extra ``report`` is not installed."""
    from edgeattn.plots.style import require

    require("matplotlib", "jinja2", purpose="The HTML report", extra="report")
