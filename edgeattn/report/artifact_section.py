"""One artifact on the page: what it is, its checks against their limits, errors, maps and task."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeattn.report import check_descriptions as words
from edgeattn.report import map_section as attention
from edgeattn.report import svg_figures as plots
from edgeattn.report import task_section as outcome
from edgeattn.report.markup import badge, e, facts, figure, number, size, table
from edgeattn.tensors import Array, Tensors

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.validation.validate import ArtifactReport, Check


def anchor(item: ArtifactReport) -> str:
    return f"{item.artifact.format}-{item.artifact.scheme}"


def section(
    bundle: Bundle,
    item: ArtifactReport,
    arrays: Tensors,
    budget: int,
    vocabulary: Sequence[str] | None,
    explanation: Sequence[str],
    unfold: bool,
) -> str:
    """The HTML of one artifact; what passed is folded where there are several."""
    name = anchor(item)
    unfolded = " open" if item.verdict != "pass" or unfold else ""
    parts = [
        f'<section id="{name}" class="artifact" aria-labelledby="{name}-title">',
        f"<details{unfolded}><summary>",
        f'<h2 id="{name}-title">{e(item.artifact.label)} {badge(item.verdict)}</h2></summary>',
        facts(_facts(item)),
    ]
    if item.reason:
        parts.append(f'<p class="reason">{e(item.reason)}</p>')
    failed = "".join(f"<li>{e(words.sentence(check))}</li>" for check in item.failed)
    if failed:
        parts.append(f'<ul class="failed">{failed}</ul>')
    if explanation:
        told = "".join(f"<p>{e(text)}</p>" for text in explanation)
        parts.append(f"<h3>Where it went wrong</h3>{told}")
    parts += _checks(item)
    rows = int(bundle.manifest.reference["samples"])
    parts += _errors(item, arrays, rows)
    key = anchor(item)
    maps = list(
        attention.sections(
            item.artifact, arrays, item.answers, rows, key, budget, vocabulary=vocabulary
        )
    )
    if maps:
        parts += ["<h3>Attention</h3>", *maps]
    parts += outcome.details(item)
    return "\n".join([*parts, "</details></section>"])


def _facts(item: ArtifactReport) -> list[tuple[str, str]]:
    artifact = item.artifact
    told = [
        ("File", f"<code>{e(artifact.path)}</code>"),
        ("Size", e(size(artifact.bytes))),
        ("Ran in", e(item.runtime or "nothing: not run")),
    ]
    weights = _shares(artifact.achieved.get("weights"))
    if weights:
        told.append(("Weights", e(weights)))
    computed = artifact.achieved.get("computes_in")
    if isinstance(computed, Mapping) and computed:
        counts = {kind: sum(named.values()) for kind, named in computed.items()}
        told.append(("Operators in", e(", ".join(f"{n} {kind}" for kind, n in counts.items()))))
    return told


def _shares(weights: object) -> str:
    if not isinstance(weights, Mapping) or not sum(weights.values()):
        return ""
    total = sum(weights.values())
    parts = sorted(weights.items(), key=lambda part: -part[1])
    return ", ".join(f"{100 * n / total:.0f}% {kind}" for kind, n in parts if n) + f" of {total:,}"


# Checks


def _checks(item: ArtifactReport) -> Iterator[str]:
    judged = [check for check in item.checks if check.limit is not None]
    told = [check for check in item.checks if check.limit is None]
    if judged:
        yield "<h3>Checks</h3>"
        header = ["check", "of", "stage", "value", "must be", "of the limit", "verdict"]
        rows = [_judged(check) for check in judged]
        yield table("Checks and their limits", header, rows, kind="checks")
    if told:
        header = ["check", "of", "stage", "value"]
        rows = [_named(check) for check in told]
        yield (
            f"<details><summary>{len(told)} more numbers, without a limit</summary>"
            + table("Numbers without a limit", header, rows, kind="checks")
            + "</details>"
        )


def _named(check: Check) -> list[str]:
    of = e(check.output or "") + (f" <small>on {e(check.data)}</small>" if check.data else "")
    value = number(check.value)
    if check.heads:
        each = ", ".join(f"{k}: {number(head)}" for k, head in enumerate(check.heads, 1))
        value += f" <small>by head {each}</small>"
    name = f"{e(words.title(check.metric))} <code>{e(check.metric)}</code>"
    return [name, of or "the file", check.stage, value]


def _judged(check: Check) -> list[str]:
    assert check.limit is not None
    sign = {"<=": "≤", ">=": "≥"}[check.better]
    verdict = badge("pass" if check.passed else "fail")
    return [*_named(check), f"{sign} {number(check.limit)}", _used(check), verdict]


def _used(check: Check) -> str:
    """How much of what is allowed is used, as a bar and in percent."""
    limit, value = check.limit, check.value
    if limit is None or check.better != "<=" or not limit > 0 or not math.isfinite(value):
        return ""
    part = value / limit
    kind = "bar over" if part > 1 else "bar"
    text = f"{100 * part:.0f}%" if part >= 0.01 else "under 1%"
    return f'<span class="{kind}" style="--share:{min(100.0, 100 * part):.1f}%"></span> {text}'


# Errors


def _errors(item: ArtifactReport, arrays: Tensors, rows: int) -> Iterator[str]:
    figures = []
    for spec in item.artifact.outputs:
        key = f"output/{spec.name}"
        if spec.name in item.artifact.attention or spec.name not in item.answers:
            continue
        if key not in arrays or arrays[key].shape != item.answers[spec.name].shape:
            continue
        errors = _difference(arrays[key][:rows], item.answers[spec.name][:rows])
        exact = int((errors == 0).sum())
        caption = (
            f"Errors of output {spec.name} on {rows} samples: {errors.size:,} values, the largest "
            f"{number(float(np.max(np.abs(errors), initial=0.0)))}."
        )
        if exact:
            caption += f" {exact:,} are exact and not drawn."
        figures.append(figure(plots.histogram(errors, caption), caption))
    if figures:
        yield "<h3>Errors</h3>"
        yield from figures


def _difference(want: Array, got: Array) -> Array:
    with np.errstate(invalid="ignore"):
        errors: Array = got.astype(np.float64) - want.astype(np.float64)
    return errors
