"""The page: verdict first, then each artifact's checks, errors, maps, task and size."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from edgeattn import __version__, metrics
from edgeattn.report import plots
from edgeattn.tensors import Array, Tensors

if TYPE_CHECKING:
    from edgeattn.bundle import Bundle
    from edgeattn.task import Outcome
    from edgeattn.validation import ArtifactReport, Check, Report

SIGNS = {"pass": "✓", "fail": "✗", "inconclusive": "?", "not run": "–"}
# A confusion matrix of more classes is told by its largest confusions.
MOST_CLASSES = 20
PICKED = ("worst", "median", "best")


def render(bundle: Bundle, report: Report) -> str:
    """The whole page as text."""
    reference = bundle.reference()
    parts = [
        _head(bundle, report),
        _overview(report),
        _task_figure(report),
        *(_artifact(bundle, item, reference) for item in report.artifacts),
        _foot(bundle),
    ]
    # Styles and script lie beside this file, so that editors know them for what they are.
    here = resources.files("edgeattn.report")
    style = (here / "page.css").read_text("utf-8")
    script = (here / "page.js").read_text("utf-8")
    title = html.escape(f"{bundle.path.name}: {report.verdict}")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{title}</title><style>{style}</style></head><body><main>"
        + _numbered("\n".join(part for part in parts if part))
        + f"</main><script>{script}</script></body></html>\n"
    )


def _numbered(text: str) -> str:
    """Names that no two figures share: the same figure may well be drawn twice."""
    first, *figures = text.split("<svg ")
    named = [part.replace(plots.NUMBER, f"f{k}_") for k, part in enumerate(figures)]
    return "<svg ".join([first, *named])


def _e(text: object) -> str:
    return html.escape(str(text), quote=True)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "-∞"}.get(value, "NaN")
    return f"{value:.3g}"


def _badge(verdict: str) -> str:
    kind = verdict.replace(" ", "-")
    sign = f'<span aria-hidden="true">{SIGNS[verdict]}</span>'
    return f'<span class="badge {kind}">{sign} {verdict}</span>'


def _table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already; it scrolls by itself where the screen is narrow."""
    head = "".join(f'<th scope="col">{_e(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{c}</td>" for c in row[1:]) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_e(caption)}"><table>'
        f"<caption>{_e(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _figure(svg: str, caption: str, extra: str = "") -> str:
    return f"<figure{extra}>{svg}<figcaption>{_e(caption)}</figcaption></figure>"


def _head(bundle: Bundle, report: Report) -> str:
    model, reference = bundle.manifest.model, bundle.manifest.reference
    count = dict.fromkeys(SIGNS, 0)
    for item in report.artifacts:
        count[item.verdict] += 1
    told = ", ".join(f"{number} {verdict}" for verdict, number in count.items() if number)
    return (
        f"<header><h1>{_e(model['file'])} {_badge(report.verdict)}</h1>"
        f"<p>{len(report.artifacts)} artifacts: {told}. Held to Keras on "
        f"{reference['samples']} samples ({_e(reference['source'])}) and "
        f"{reference['edge_cases']} edge cases. {model['parameters']:,} parameters.</p></header>"
    )


def _overview(report: Report) -> str:
    largest = max((item.artifact.bytes for item in report.artifacts), default=1)
    rows = []
    names = ("structure", "numbers", "attention", "task", "device")
    for item in report.artifacts:
        artifact, stages = item.artifact, item.stages
        share = 100 * artifact.bytes / largest
        bar = f'<span class="bar" style="--share:{share:.1f}%"></span>'
        size = f"{bar} {artifact.bytes / 1000:,.1f} kB"
        error = "–" if item.max_abs_error is None else _number(item.max_abs_error)
        rows.append(
            [
                f'<a href="#{_anchor(item)}">{_e(artifact.label)}</a>',
                _badge(item.verdict),
                size,
                *(_badge(stages[name]) for name in names),
                error,
            ]
        )
    header = ["artifact", "verdict", "size", *names, "largest error"]
    return _table("All artifacts", header, rows)


def _anchor(item: ArtifactReport) -> str:
    return f"{item.artifact.format}-{item.artifact.scheme}"


def _task_figure(report: Report) -> str:
    rows: list[plots.Drop] = []
    tasks = [(item, item.task) for item in report.artifacts if item.task is not None]
    for item, task in tasks:
        for outcome in task.outcomes:
            name = item.artifact.label
            if len(task.outcomes) > 1:
                name += f", {outcome.output}"
            if all(map(math.isfinite, outcome.interval)):
                rows.append((name, outcome.drop, *outcome.interval, outcome.margin))
    if not rows:
        return ""
    first = next(task for _, task in tasks if task.outcomes)
    caption = (
        f"What each artifact loses on {first.source}, compared with {first.reference}. "
        "A bar left of its mark passes; one that crosses it needs more samples."
    )
    notes = "".join(f"<p>{_e(note)}.</p>" for note in first.notes)
    figure = _figure(plots.drops(rows, caption), caption)
    return f"<section><h2>The task</h2>{figure}{notes}</section>"


def _artifact(bundle: Bundle, item: ArtifactReport, arrays: Tensors) -> str:
    parts = [
        f'<section id="{_anchor(item)}"><h2>{_e(item.artifact.label)} {_badge(item.verdict)}</h2>'
    ]
    if item.reason:
        parts.append(f"<p>{_e(item.reason)}</p>")
    failed = "".join(f"<li>{_e(_sentence(check))}</li>" for check in item.failed)
    if failed:
        parts.append(f"<ul>{failed}</ul>")
    parts += _task(item)
    parts += _errors(bundle, item, arrays)
    parts += _maps(bundle, item, arrays)
    if item.checks:
        table = _table("Checks and their limits", _CHECKS, [_check(c) for c in item.checks])
        parts.append(f"<details><summary>{len(item.checks)} checks</summary>{table}</details>")
    return "\n".join([*parts, "</section>"])


_CHECKS = ("check", "of", "stage", "value", "must be", "verdict")


def _sentence(check: Check) -> str:
    of = f" of {check.output}" if check.output else ""
    limit = "" if check.limit is None else f", and must be {check.better} {_number(check.limit)}"
    return f"{check.metric}{of} is {_number(check.value)}{limit}"


def _check(check: Check) -> list[str]:
    limit = "" if check.limit is None else f"{check.better} {_number(check.limit)}"
    verdict = {None: "told", True: _badge("pass"), False: _badge("fail")}[check.passed]
    value = _number(check.value)
    if check.heads:
        value += f" <small>by head: {', '.join(_number(head) for head in check.heads)}</small>"
    return [_e(check.metric), _e(check.output or ""), check.stage, value, _e(limit), verdict]


def _errors(bundle: Bundle, item: ArtifactReport, arrays: Tensors) -> Iterator[str]:
    rows = int(bundle.manifest.reference["samples"])
    for spec in item.artifact.outputs:
        if spec.name in item.artifact.attention or spec.name not in item.answers:
            continue
        want, got = arrays[f"output/{spec.name}"], item.answers[spec.name]
        if want.shape != got.shape:
            continue
        errors = got[:rows].astype(np.float64) - want[:rows].astype(np.float64)
        exact = int((errors == 0).sum())
        caption = f"Errors of output {spec.name} on the samples"
        if exact:
            caption += f"; {exact:,} of {errors.size:,} values are exact and not drawn"
        yield _figure(plots.histogram(errors, None, caption), caption)


def _maps(bundle: Bundle, item: ArtifactReport, arrays: Tensors) -> Iterator[str]:
    rows = int(bundle.manifest.reference["samples"])
    for number, name in enumerate(item.artifact.attention):
        if name not in item.answers or arrays[name].shape != item.answers[name].shape:
            continue
        want, got = arrays[name][:rows], item.answers[name][:rows]
        each = np.array(
            [metrics.max_abs_error(w[None], g[None]) for w, g in zip(want, got, strict=True)]
        )
        order = np.argsort(np.where(np.isnan(each), np.inf, each))
        chosen = {"worst": order[-1], "median": order[len(order) // 2], "best": order[0]}
        key = f"{_anchor(item)}-map-{number}"
        options = "".join(
            f'<option value="{kind}">{kind}: sample {chosen[kind]}</option>' for kind in PICKED
        )
        title = f"Attention of {name.removeprefix('attention/')}"
        yield f"<h3>{_e(title)}</h3>"
        yield f'<p class="picker"><label>Sample <select data-picks="{key}">'
        yield f"{options}</select></label></p>"
        for kind in PICKED:
            row = int(chosen[kind])
            caption = f"{title}: the {kind} of {rows} samples, number {row}; largest difference "
            caption += _number(float(each[row]))
            figure = plots.maps(want[row], got[row], caption)
            yield _figure(figure, caption, f' data-pick="{key}" data-kind="{kind}"')


def _task(item: ArtifactReport) -> Iterator[str]:
    task = item.task
    if task is None:
        return
    if task.reason:
        yield f"<p>Task: not run. {_e(task.reason)}</p>"
    for outcome in task.outcomes:
        yield f"<h3>Task of {_e(outcome.output)} {_badge(outcome.verdict)}</h3>"
        low, high = outcome.interval
        text = (
            f"{outcome.score.capitalize()} {outcome.before:.4f} with {task.reference}, "
            f"{outcome.after:.4f} with this artifact, on {outcome.samples:,} samples. "
            f"The drop is {100 * outcome.drop:.2f} points, its 95% interval {100 * low:.2f} to "
            f"{100 * high:.2f}, and {100 * outcome.margin:.2f} may be lost."
        )
        if outcome.p_value is not None:
            text += (
                f" {outcome.lost} decisions became wrong and {outcome.gained} right "
                f"(McNemar's exact p = {outcome.p_value:.2g})."
            )
        for name, (before, after) in outcome.errors.items():
            text += f" {name.upper()} {_number(before)} before, {_number(after)} after."
        if outcome.verdict == "inconclusive" and outcome.needed:
            text += f" About {outcome.needed:,} samples like these would settle it."
        yield f"<p>{_e(text)}</p>"
        yield from _confusions(outcome)


def _confusions(outcome: Outcome) -> Iterator[str]:
    if outcome.confusions is None or len(outcome.confusions[0]) > MOST_CLASSES:
        return
    yield '<div class="pair">'
    for name, matrix in zip(("before", "after"), outcome.confusions, strict=True):
        yield _confusion(f"Confusion {name}: true class by row, answer by column", matrix)
    yield "</div>"


def _confusion(caption: str, matrix: Array) -> str:
    totals = np.maximum(matrix.sum(1, keepdims=True), 1)
    shares = matrix / totals
    rows = []
    for label, (counts, share) in enumerate(zip(matrix, shares, strict=True)):
        cells = [
            f'<span class="cell{" right" if label == column else ""}" style="--v:{part:.3f}">'
            f"{count}</span>"
            for column, (count, part) in enumerate(zip(counts, share, strict=True))
        ]
        rows.append([str(label), *cells])
    header = ["", *map(str, range(len(matrix)))]
    return '<div class="confusion">' + _table(caption, header, rows) + "</div>"


def _foot(bundle: Bundle) -> str:
    made = ", ".join(f"{name} {version}" for name, version in bundle.manifest.made_with.items())
    digest = bundle.manifest.model.get("sha256")
    told = f" Model's SHA-256: <code>{_e(digest)}</code>." if digest else ""
    return (
        f"<footer><p>Made by edgeattn {_e(__version__)}; bundle made with {_e(made or '–')}.{told}"
        "</p></footer>"
    )
