"""Lines on artifacts that convert and validate share: right or wrong, their failures and costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeattn.metrics.verdict import (
    FAIL,
    FEW_SAMPLES,
    LOST,
    NOT_PROVEN,
    PRECISION,
    RIGHT,
    UNKNOWN,
    WRONG,
)

if TYPE_CHECKING:
    from edgeattn.metrics.limits import Check
    from edgeattn.validation.report import ArtifactReport


def conversion_summary(reports: Sequence[ArtifactReport]) -> Iterator[str]:
    """``Converted right: 4 of 6. Wrong: onnx float16. Unknown: onnx int8.``"""
    run = [item for item in reports if item.runtime is not None]
    if not run:
        return
    if all(item.conversion == UNKNOWN for item in run):
        names = ", ".join(item.artifact.label for item in run)
        yield f"Converted right: unknown for {names}. The limits decide."
        yield from _unknown_lines(run)
        return
    right = sum(item.conversion == RIGHT for item in run)
    parts = [f"Converted right: {right} of {len(run)}."]
    for result, title in ((WRONG, "Wrong"), (UNKNOWN, "Unknown")):
        labels = [item.artifact.label for item in run if item.conversion == result]
        if labels:
            parts.append(f"{title}: {', '.join(labels)}.")
    beyond = [
        item.artifact.label
        for item in run
        if item.conversion == RIGHT and item.verdict == FAIL and not item.broken
    ]
    if beyond:
        parts.append(
            f"Right, but beyond the limits: {', '.join(beyond)} (rounding explains the errors)."
        )
    yield " ".join(parts)
    yield from _unknown_lines(run)


def _unknown_lines(reports: Sequence[ArtifactReport]) -> Iterator[str]:
    """A line for each reason why it is unknown whether artifacts are converted right."""
    labels: dict[str, list[str]] = {}
    for item in reports:
        if item.conversion == UNKNOWN:
            labels.setdefault(item.unknown_reason, []).append(item.artifact.label)
    for reason, names in labels.items():
        yield f"Unknown for {', '.join(names)}: {reason}."


def not_converted_line(failure: Mapping[str, Any]) -> str:
    """Why an artifact could not be converted, and what to do."""
    line = f"{failure['format']} {failure['scheme']}: {failure['reason']}"
    if not failure.get("hint"):
        return line
    return f"{line if line.endswith('.') else f'{line}.'} {failure['hint']}"


def cost_lines(report: ArtifactReport) -> Iterator[str]:
    """A line for each limit that the artifact misses only because of rounding.

    The value of a failed check, and its limits, are in the line on its failure.
    """
    from edgeattn.validation.rounding import WEIGHTS, limit_name

    coarse = {check.key for reason, check in report.open_limits if reason == PRECISION}
    failed = {check.key for check in report.failed}
    for check in report.explained:
        cost = report.rounding.get(check.output or "", {}).get(check.metric)
        weights = WEIGHTS.get(report.artifact.scheme)
        rounding = f"rounding the weights to {weights}" if weights else "rounding in float32"
        right = "converted right; " if report.conversion == RIGHT else ""
        if check.key in failed:
            if cost is not None:
                gives = f"{rounding} alone gives {cost:.3g} for {check.name}"
                yield f"{report.artifact.label}: {right}{gives}"
            continue
        line = (
            f"{report.artifact.label}: {right}{check.name} is {check.value:.3g} "
            f"(usual limit {check.relation} {check.limit:.3g})"
        )
        if check.detail:
            line += f": {check.detail}"
        if cost is not None:
            rounding = f". {rounding.capitalize()}" if check.detail else f", and {rounding}"
            line += f"{rounding} alone gives {cost:.3g}"
        if check.key in coarse:
            line += (
                ". Choose a more precise scheme, or decide with --limit "
                f"{check.output}:{limit_name(check)}=VALUE"
            )
        yield line


def failure_lines(report: ArtifactReport) -> list[str]:
    """A line for each reason why an artifact does not pass or does not run."""
    label = report.artifact.label
    lines = [f"{label}: {report.reason}"] if report.reason else []
    usual = {check.key: check.limit for check in report.explained}
    lines += [f"{label}: {check.compared(usual.get(check.key))}" for check in report.failed]
    # A line on the cost of the precision says more about the others.
    open_limits = [(reason, check) for reason, check in report.open_limits if reason != PRECISION]
    lines += [
        f"{label}: {reason}. {check.comparison}{_advice(check) if reason == LOST else ''}"
        for reason, check in open_limits
    ]
    return lines


def _advice(check: Check) -> str:
    """How to decide about values that the artifact does not have."""
    return (
        ". Make them an output of their own, choose a more precise scheme, or accept them with "
        f"--limit {check.output}:{check.metric}={check.value:.0f}"
    )


def settling_command(arguments: str, reports: Sequence[ArtifactReport]) -> Iterator[str]:
    """How to decide limits that were missed on synthetic or on too few samples.

    ``arguments`` of ``edgeattn validate`` name what to validate.
    """
    reasons = {reason for report in reports for reason, _ in report.open_limits}
    command = f"edgeattn validate {arguments} --data FILE"
    if NOT_PROVEN in reasons:
        yield (
            "Limits that were missed on synthetic samples prove nothing. Validate on real ones: "
            f"{command}"
        )
    elif FEW_SAMPLES in reasons:
        yield f"Validate on more samples to decide: {command}"
