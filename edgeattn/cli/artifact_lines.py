"""Lines on artifacts that convert and validate share: right or wrong, their failures and costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edgeattn.metrics.verdict import (
    FEW_SAMPLES,
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
        yield (
            f"Converted right: unknown for {', '.join(item.artifact.label for item in run)}. "
            "Rounding of the weights is not known to explain all errors; the limits decide."
        )
        return
    right = sum(item.conversion == RIGHT for item in run)
    parts = [f"Converted right: {right} of {len(run)}."]
    for result, title in ((WRONG, "Wrong"), (UNKNOWN, "Unknown")):
        labels = [item.artifact.label for item in run if item.conversion == result]
        if labels:
            parts.append(f"{title}: {', '.join(labels)}.")
    yield " ".join(parts)


def cost_lines(report: ArtifactReport) -> Iterator[str]:
    """A line for each limit that the artifact misses only because of rounding."""
    from edgeattn.validation.rounding import WEIGHTS, limit_name

    coarse = {check.key for reason, check in report.open_limits if reason == PRECISION}
    for check in report.explained:
        cost = report.rounding.get(check.output or "", {}).get(check.metric)
        weights = WEIGHTS.get(report.artifact.scheme)
        rounding = f"rounding the weights to {weights}" if weights else "rounding in float32"
        right = "converted right; " if report.conversion == RIGHT else ""
        line = (
            f"{report.artifact.label}: {right}{check.name} is {check.value:.3g} "
            f"(usual limit {check.relation} {check.limit:.3g})"
        )
        if cost is not None:
            line += f", and {rounding} alone gives {cost:.3g}"
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
    lines += [f"{label}: {check.comparison}" for check in report.failed]
    # A line on the cost of the precision says more about the others.
    open_limits = [(reason, check) for reason, check in report.open_limits if reason != PRECISION]
    lines += [f"{label}: {reason}. {check.comparison}" for reason, check in open_limits]
    return [*lines, *_edge_case_lines(report, (*report.failed, *(item[1] for item in open_limits)))]


def _edge_case_lines(report: ArtifactReport, missed: Sequence[Check]) -> Iterator[str]:
    """The error with the edge cases, if it is larger than the one in the table, of the samples."""
    errors = {
        (check.output, check.metric): check.value
        for check in report.checks
        if check.stage == "numbers" and check.data is None
    }
    outputs = {
        check.output: None for check in missed if check.stage == "numbers" and not check.data
    }
    for output in outputs:
        of_samples = errors.get((output, "samples_max_abs_error"))
        of_all = errors.get((output, "max_abs_error"))
        if of_samples is not None and of_all is not None and of_all > of_samples:
            yield (
                f"{report.artifact.label}: in the reference, the max abs error of {output} is "
                f"{of_samples:.2g} on the samples and {of_all:.2g} with the edge cases"
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
