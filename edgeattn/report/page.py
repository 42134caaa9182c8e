"""The page: verdict first, then what failed, the task, size and latency, and each artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from edgeattn import __version__
from edgeattn.report import artifact_section as artifact
from edgeattn.report import check_descriptions as words
from edgeattn.report import latency_section as latency
from edgeattn.report import map_section as attention
from edgeattn.report import svg_figures as plots
from edgeattn.report import task_section as outcome
from edgeattn.report.markup import SIGNS, badge, e, facts, number, size, table
from edgeattn.tensors import Tensors
from edgeattn.validation.report import STAGES

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.validation.validate import ArtifactReport, Report

SAID = {
    "pass": "Every artifact that ran computes what Keras computed, within its limits.",
    "fail": "At least one artifact does not compute what Keras computed.",
    "inconclusive": "Nothing failed, and the samples cannot tell whether the task is kept.",
    "not run": "Nothing could be run here: no runtime is installed.",
}


def render(
    bundle: Bundle,
    report: Report,
    *,
    bench: Mapping[str, Any] | None = None,
    vocabulary: Sequence[str] | None = None,
    explanations: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """The whole page as text.

    ``bench`` is what ``edgeattn bench --json`` printed, ``vocabulary`` the words that numbers of a
    text stand for, ``explanations`` paragraphs by an artifact's label.
    """
    reference = _arrays(bundle, report)
    budget = attention.BUDGET // max(1, len(report.artifacts))
    parts = [
        '<a class="skip" href="#verdict">Skip to the verdict</a>',
        _header(bundle, report),
        "<main>",
        _failures(report),
        _overview(report),
        *outcome.overview(report),
        *latency.section(report, bench),
        *(
            artifact.section(
                bundle,
                item,
                reference,
                budget,
                vocabulary,
                (explanations or {}).get(item.artifact.label, ()),
                len(report.artifacts) == 1,
            )
            for item in report.artifacts
        ),
        _glossary(report),
        "</main>",
        _footer(bundle),
    ]
    # Styles and script lie beside this file, so that editors know them for what they are.
    here = resources.files("edgeattn.report")
    style = (here / "page.css").read_text("utf-8")
    script = (here / "page.js").read_text("utf-8")
    title = e(f"{bundle.path.name}: {report.verdict}")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        # Without an icon of its own, a browser would ask a server for one.
        '<link rel="icon" href="data:,">'
        f"<title>{title}</title><style>{style}</style></head><body>"
        + _numbered("\n".join(part for part in parts if part))
        + f"<script>{script}</script></body></html>\n"
    )


def _arrays(bundle: Bundle, report: Report) -> Tensors:
    # Where nothing was run there is nothing to draw, and the reference need not even be there.
    return bundle.reference() if any(item.answers for item in report.artifacts) else {}


def _numbered(text: str) -> str:
    """Names that no two figures share: the same figure may well be drawn twice."""
    first, *figures = text.split("<svg ")
    named = [part.replace(plots.NUMBER, f"f{k}_") for k, part in enumerate(figures)]
    return "<svg ".join([first, *named])


def _header(bundle: Bundle, report: Report) -> str:
    model, reference = bundle.manifest.model, bundle.manifest.reference
    count = dict.fromkeys(SIGNS, 0)
    for item in report.artifacts:
        count[item.verdict] += 1
    told = ", ".join(f"{n} {verdict}" for verdict, n in count.items() if n)
    links = "".join(
        f'<li><a href="#{artifact.anchor(item)}"><span aria-hidden="true">{SIGNS[item.verdict]}'
        f"</span> {e(item.artifact.label)}</a></li>"
        for item in report.artifacts
    )
    kind = report.verdict.replace(" ", "-")
    held = (
        f"{reference['samples']} samples ({e(reference['source'])}) and "
        f"{reference['edge_cases']} edge cases, in a row"
    )
    sources = {task.source for item in report.artifacts if (task := item.task) and task.outcomes}
    pairs = [
        ("Model", f"<code>{e(model['file'])}</code>, {model['parameters']:,} parameters"),
        ("Artifacts", e(told or "none")),
        ("Held to Keras on", held),
        *([("Task judged on", e(", ".join(sorted(sources))))] if sources else []),
    ]
    return (
        f'<header id="verdict"><h1><span class="name">{e(bundle.path.name)}</span> '
        f'<span class="verdict {kind}">{badge(report.verdict)}</span></h1>'
        f"<p>{SAID[report.verdict]}</p>{facts(pairs)}"
        f'<nav aria-label="Artifacts"><ul>{links}</ul></nav></header>'
    )


def _overview(report: Report) -> str:
    largest = max((item.artifact.bytes for item in report.artifacts), default=1)
    rows = []
    for item in report.artifacts:
        stages = item.stages
        error = "–" if item.max_abs_error is None else number(item.max_abs_error)
        share = 100 * item.artifact.bytes / largest
        bar = f'<span class="bar" style="--share:{share:.1f}%"></span>'
        rows.append(
            [
                f'<a href="#{artifact.anchor(item)}">{e(item.artifact.label)}</a>',
                badge(item.verdict),
                *(badge(stages[name]) for name in STAGES),
                error,
                f"{bar} {size(item.artifact.bytes)}",
            ]
        )
    header = ["artifact", "verdict", *STAGES, "largest error", "size"]
    return (
        '<section aria-labelledby="overview-title"><h2 id="overview-title">Overview</h2>'
        + table("All artifacts and their stages", header, rows, kind="cards")
        + "</section>"
    )


def _failures(report: Report) -> str:
    """What failed, all in one place: it is what is read first."""
    lines = [
        f'<li><a href="#{artifact.anchor(item)}">{e(item.artifact.label)}</a>: {e(text)}</li>'
        for item in report.artifacts
        for text in _reasons(item)
    ]
    if not lines:
        return ""
    return (
        '<section aria-labelledby="why-title"><h2 id="why-title">Why</h2>'
        f'<ul class="failed">{"".join(lines)}</ul></section>'
    )


def _reasons(item: ArtifactReport) -> list[str]:
    reasons = [item.reason] if item.reason else []
    reasons += [words.sentence(check) for check in item.failed]
    for found in () if item.task is None else item.task.outcomes:
        if found.verdict == "fail":
            reasons.append(
                f"{found.score} of {found.output} drops by {100 * found.drop:.2f} points; "
                f"{100 * found.margin:.2f} may be lost"
            )
        elif found.verdict == "inconclusive":
            more = f"; about {found.needed:,} would settle it" if found.needed else ""
            reasons.append(f"{found.samples:,} samples cannot tell whether the task is kept{more}")
    return reasons


def _glossary(report: Report) -> str:
    there = {check.metric for item in report.artifacts for check in item.checks}
    terms = [(name, *told) for name, told in words.CHECKS.items() if name in there]
    parts = "".join(
        f"<dt>{e(title)} <code>{e(name)}</code></dt><dd>{e(text)}</dd>"
        for name, title, text in terms
    )
    if not parts:
        return ""
    return (
        '<section aria-labelledby="words-title"><h2 id="words-title">What the checks mean</h2>'
        f'<details><summary>{len(terms)} checks</summary><dl class="words">{parts}</dl></details>'
        "</section>"
    )


def _footer(bundle: Bundle) -> str:
    made = ", ".join(f"{name} {version}" for name, version in bundle.manifest.made_with.items())
    digest = bundle.manifest.model.get("sha256")
    told = f" Model's SHA-256: <code>{e(digest)}</code>." if digest else ""
    return (
        f"<footer><p>Made by edgeattn {e(__version__)}; bundle made with {e(made or '–')}.{told}"
        "</p></footer>"
    )
