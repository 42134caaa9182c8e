"""Values of the first screen: the recommended file and its size, latency, score and attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgeattn.printable import counted
from edgeattn.report.number_formats import format_number, format_size
from edgeattn.report.task_section import score_text

if TYPE_CHECKING:
    from edgeattn.report.latency_section import LatencySection
    from edgeattn.validation.recommendation import Candidate, Recommendation
    from edgeattn.validation.report import ArtifactReport, Report

METRICS = {"accuracy": "accuracy", "r2": "R²"}


def summary_section(
    report: Report, recommendation: Recommendation | None, latency: LatencySection | None
) -> list[tuple[str, str]]:
    """Titles and values of the recommended artifact; empty if there is no recommendation."""
    if recommendation is None or recommendation.candidate is None:
        return []
    candidate = recommendation.candidate
    (item,) = [item for item in report.artifacts if item.artifact == candidate.artifact]
    return [
        ("Size", format_size(item.artifact.bytes)),
        ("Median latency", _latency(candidate, recommendation, latency)),
        ("Score", "; ".join(_scores(item))),
        ("Attention", _attention(item)),
    ]


def _latency(
    candidate: Candidate, recommendation: Recommendation, latency: LatencySection | None
) -> str:
    """The latency that the recommendation is based on, or else that of the bench document."""
    if candidate.p50_ms is not None:
        machine = recommendation.timed_on or recommendation.device
        return latency_text(candidate.p50_ms, candidate.threads, machine)
    result = None if latency is None else latency.results.get(candidate.artifact.label)
    if latency is None or result is None:
        return "not measured"
    return latency_text(result["p50_ms"], result["threads"], latency.machine)


def latency_text(milliseconds: float, threads: int | None, machine: str) -> str:
    """``0.12 ms with 1 thread on pi@raspberrypi``."""
    count = f" with {counted(threads, 'thread')}" if threads else ""
    return f"{format_number(milliseconds)} ms{count} on {machine}"


def _scores(item: ArtifactReport) -> Iterator[str]:
    """The score of each output with its interval, and that of the reference."""
    task = item.task
    if task is None:
        yield "not measured: no dataset with labels"
    elif not task.results:
        yield f"not measured: {task.reason}" if task.reason else "not measured"
    else:
        for outcome in task.results:
            after, interval = score_text(outcome, outcome.artifact_score)
            before, _ = score_text(outcome, outcome.reference_score)
            of = f" of {outcome.output}" if len(task.results) > 1 else ""
            certainty = f"95% interval {interval.strip('()')}" if interval else outcome.summary
            name = METRICS.get(outcome.metric, outcome.metric)
            yield f"{name}{of} {after} ({certainty}), {before} with {task.reference_name}"


def _attention(item: ArtifactReport) -> str:
    """The largest error of an attention map and its limit."""
    error = item.headline["attention_max_abs_error"]
    if error is None:
        return "maps not compared" if item.artifact.attention else "the artifact has no maps"
    limits = {
        check.limit
        for check in item.checks
        if (check.stage, check.metric, check.data) == ("attention", "max_abs_error", item.data)
        and check.value == error
        and check.limit is not None
    }
    limit = f", limit {format_number(min(limits))}" if limits else ""
    return f"max abs error of a weight {format_number(error)}{limit}"
