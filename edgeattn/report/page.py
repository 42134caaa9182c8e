"""The HTML report: the verdict first, then failures, task, size and latency, and each artifact."""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.dequantized import dequantized_note
from edgeattn.printable import counted, printable
from edgeattn.report.artifact_section import artifact_section
from edgeattn.report.check_descriptions import CHECKS, describe, percent_of_limit, title
from edgeattn.report.comparison_section import comparison_section
from edgeattn.report.latency_section import latency_section
from edgeattn.report.map_section import MAX_MAP_BYTES
from edgeattn.report.number_formats import format_date, format_number, format_size
from edgeattn.report.overview_section import overview_section
from edgeattn.report.summary_section import summary_section
from edgeattn.report.svg_figures import ID_PREFIX
from edgeattn.report.task_section import task_section
from edgeattn.validation.bundle_comparison import BundleComparison
from edgeattn.validation.recommendation import Recommendation
from edgeattn.validation.report import ArtifactReport, Report
from edgeattn.version import __version__

# A verdict has a sign and a word, so that color is never the only difference.
VERDICT_SIGNS = {"pass": "✓", "fail": "✗", "inconclusive": "?", "not run": "–"}

# So that the printed page has at most four sheets: lines of failures, and artifacts with details.
MAX_PRINTED_LINES, MAX_PRINTED_ARTIFACTS = 24, 4


def render(
    bundle: Bundle,
    report: Report,
    *,
    bench: Mapping[str, Any] | None = None,
    vocabulary: Sequence[str] | None = None,
    explanations: Mapping[str, Sequence[str]] | None = None,
    recommendation: Recommendation | None = None,
    facts: Mapping[str, str] | None = None,
    comparison: BundleComparison | None = None,
) -> str:
    """The report as HTML text; the arguments are those of :func:`edgeattn.report.write_html`."""
    # Without outputs there is nothing to draw, and the reference may be missing.
    has_outputs = any(item.outputs for item in report.artifacts)
    reference = bundle.reference() if has_outputs else {}
    labels = _class_labels(bundle, report)
    sections = [
        artifact_section(
            item,
            reference,
            int(bundle.manifest.reference["samples"]),
            max_map_bytes=MAX_MAP_BYTES // len(report.artifacts),
            vocabulary=vocabulary,
            explanation=(explanations or {}).get(item.artifact.label, ()),
            attended=bundle.manifest.attended,
            labels=labels,
        )
        for item in report.artifacts
    ]
    detailed = _detailed(report, recommendation)
    verdicts = Counter(item.verdict for item in report.artifacts)
    compared = [item.task for item in report.artifacts if item.task and item.data]
    metrics = {check.metric for item in report.artifacts for check in item.checks}
    latency = latency_section(report, bench)
    script = render_template("page.js")
    html = render_template(
        "page.html",
        bundle=bundle,
        report=report,
        recommendation=recommendation,
        version=__version__,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        overview=overview_section(report),
        counts=[f"{verdicts[name]} {name}" for name in VERDICT_SIGNS if verdicts[name]],
        data=sorted({(task.source, task.samples, task.reference_name) for task in compared}),
        failures=[(item, text) for item in report.artifacts for text in _failures(item)],
        unexplained=explanations is None and any(item.failed for item in report.artifacts),
        largest=max((item.artifact.bytes for item in report.artifacts), default=1),
        sections=sections,
        detailed=detailed,
        printed=detailed[:MAX_PRINTED_ARTIFACTS],
        max_printed_lines=MAX_PRINTED_LINES,
        task=task_section(report),
        latency=latency,
        comparison=comparison and comparison_section(comparison),
        summary=summary_section(report, recommendation, latency),
        facts=_identity(bundle, facts or {}),
        glossary={name: texts for name, texts in CHECKS.items() if name in metrics},
    )
    return _number_figures(html)


def _detailed(report: Report, recommendation: Recommendation | None) -> list[ArtifactReport]:
    """The artifacts to unfold: those that did not pass, or else the recommended one."""
    others = [item for item in report.artifacts if item.verdict != "pass"]
    if others or len(report.artifacts) == 1:
        return others or list(report.artifacts)
    best = None if recommendation is None else recommendation.artifact
    return [item for item in report.artifacts if item.artifact == best]


def _class_labels(bundle: Bundle, report: Report) -> dict[str, tuple[str, ...]]:
    """The labels of the classes of the output that the front end answers with, by its name."""
    if not any(item.task is not None for item in report.artifacts):
        return {}
    front_end = bundle.front_end()
    answer = None if front_end is None else front_end.answer
    if answer is None or not answer.labels:
        return {}
    # Without a name, it is the first output.
    name = answer.output or report.artifacts[0].artifact.outputs[0].name
    return {name: answer.labels}


def _identity(bundle: Bundle, facts: Mapping[str, str]) -> dict[str, str]:
    """What was validated, with which versions, and when it was converted, by title."""
    manifest = bundle.manifest
    created = manifest.created
    note = dequantized_note(manifest.model)
    identity = {
        "Not covered by the verdicts": note or "",
        "SHA-256 of the model": str(manifest.model.get("sha256", "")),
        "SHA-256 of the reference": str(manifest.reference["sha256"]),
        "Converted": "" if created is None else format_date(created),
        "Converted with": ", ".join(f"{name} {v}" for name, v in manifest.made_with.items()),
        "Validated with": f"edgeattn {__version__}",
        **facts,
    }
    return {title: value for title, value in identity.items() if value}


def _number_figures(html: str) -> str:
    """Make the ids of every figure unique; the same figure may be drawn twice."""
    first, *figures = html.split("<svg ")
    numbered = [text.replace(ID_PREFIX, f"f{number}_") for number, text in enumerate(figures)]
    return "<svg ".join([first, *numbered])


def _failures(item: ArtifactReport) -> Iterator[str]:
    """A line of text for everything that keeps the artifact from a pass."""
    if item.reason:
        yield item.reason
    yield from map(describe, item.failed)
    yield from (f"{reason}. {describe(check)}" for reason, check in item.open_limits)
    for outcome in () if item.task is None else item.task.results:
        if outcome.verdict == "fail":
            yield f"{outcome.output}: {outcome.summary}. {outcome.remedy}"
        elif outcome.verdict == "inconclusive":
            yield f"{outcome.output} is inconclusive: {outcome.summary}. {outcome.remedy}"


def render_template(name: str, **values: Any) -> str:
    """Render a file of ``templates/``. Values are escaped unless the template marks them safe."""
    return _environment().get_template(name).render(**values)


def _printable(value: Any) -> Any:
    """``value`` as a template prints it; strings that are markup have a class of their own."""
    return printable(value) if type(value) is str else value


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("edgeattn.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "counted": counted,
        "number": format_number,
        "size": format_size,
        "check_title": title,
        "check_result": describe,
        "percent_of_limit": percent_of_limit,
    }
    environment.globals["signs"] = VERDICT_SIGNS
    return environment
