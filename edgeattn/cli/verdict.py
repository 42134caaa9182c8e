"""The report of a validation as text for the terminal, the verdict in the first column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeattn.cli import output
from edgeattn.cli.convert import failure_lines
from edgeattn.metrics.verdict import INCONCLUSIVE, NOT_RUN

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.evaluation.results import TaskReport
    from edgeattn.metrics.limits import Check
    from edgeattn.validation.report import ArtifactReport, Report

Tasks = list[tuple["ArtifactReport", "TaskReport"]]


def verdict_text(bundle: Bundle, report: Report, *, quiet: bool) -> str:
    """The table of artifacts, the checks that failed, and the verdict on the last line."""
    artifacts = report.artifacts
    stages = [
        stage
        for stage in ("numbers", "attention", "task", "device")
        if stage == "numbers" or any(item.stages[stage] != NOT_RUN for item in artifacts)
    ]
    rows = [
        [
            *_identity(item, item.verdict),
            *(item.stages[stage] for stage in stages),
            output.number(item.max_abs_error),
            item.runtime or "-",
        ]
        for item in artifacts
    ]
    header = ["verdict", "format", "scheme", *stages, "max abs error", "runtime"]
    lines = [output.table(header, rows, right=(len(header) - 2,))]
    for item in artifacts:
        lines += failure_lines(item)
    tasks: Tasks = [(item, item.task) for item in artifacts if item.task is not None]
    if tasks:
        lines += ["", *_task_lines(tasks), *_dataset_lines(artifacts, tasks[0][1])]
    if not quiet:
        lines += ["", _reference_line(bundle, artifacts)]
    lines.append(f"Verdict: {report.verdict}")
    return "\n".join(lines)


def _identity(item: ArtifactReport, verdict: str) -> list[str]:
    return [verdict, item.artifact.format, item.artifact.scheme]


def _reference_line(bundle: Bundle, artifacts: Sequence[ArtifactReport]) -> str:
    reference = bundle.manifest.reference
    missing = [
        stage
        for stage in ("task", "device")
        if all(item.stages[stage] == NOT_RUN for item in artifacts)
    ]
    text = (
        f"Compared with Keras on {reference['samples']} samples ({reference['source']}) and "
        f"{reference['edge_cases']} edge cases."
    )
    return f"{text} Not run: {', '.join(missing)}." if missing else text


def _task_lines(tasks: Tasks) -> list[str]:
    """The scores of each artifact on the user's samples."""
    reasons = {task.reason for _, task in tasks}
    reason = tasks[0][1].reason
    if len(reasons) == 1 and reason:
        return [f"Task: not run. {reason}"]
    lines = _score_lines(tasks) if any(task.results for _, task in tasks) else []
    for item, task in tasks:
        if task.reason:
            lines.append(f"{item.artifact.label}: task not run. {task.reason}")
        for result in task.results:
            if result.verdict == INCONCLUSIVE:
                remedy = (
                    f"A verdict takes about {result.needed_samples:,} samples."
                    if result.needed_samples
                    else "The drop equals its limit, so that more samples will not help."
                )
                lines.append(f"{item.artifact.label}: {result.output} is inconclusive. {remedy}")
    return lines


def _score_lines(tasks: Tasks) -> list[str]:
    results = [(item, result) for item, task in tasks for result in task.results]
    first = next(task for _, task in tasks if task.results)
    # One output is named once, in the title.
    subjects = {f"{result.metric} of {result.output}" for _, result in results}
    several = len(subjects) > 1
    rows = [
        [
            *_identity(item, result.verdict),
            *([f"{result.metric} of {result.output}"] if several else []),
            f"{100 * result.reference_score:.2f}",
            f"{100 * result.artifact_score:.2f}",
            f"{100 * result.drop:+.2f}",
            f"{100 * result.interval[0]:+.2f} to {100 * result.interval[1]:+.2f}",
            f"{100 * result.margin:.2f}",
        ]
        for item, result in results
    ]
    header = ["verdict", "format", "scheme", *(["score"] if several else []), "reference (%)"]
    header += ["artifact (%)", "drop (points)", "95% interval", "limit"]
    title = "Task" if several else f"Task: {subjects.pop()}"
    return [
        f"{title} on {first.source} ({results[0][1].samples:,} samples)",
        f"Reference: {first.reference_name}",
        output.table(header, rows, right=range(len(header))[-5:]),
    ]


def _dataset_lines(artifacts: Sequence[ArtifactReport], task: TaskReport) -> list[str]:
    """The differences between outputs of artifacts and of the reference on the user's samples."""
    from edgeattn.evaluation.keras_reference import KERAS

    checks: dict[tuple[str, str, str], dict[str, Check]] = {}
    for item in artifacts:
        for check in item.checks:
            if check.data is not None:
                key = (item.artifact.format, item.artifact.scheme, check.output or "")
                checks.setdefault(key, {})[check.metric] = check
    notes = [f"note: {note}" for note in task.notes]
    if not checks:
        return notes
    rows = [
        [
            *key,
            _value(metrics.get("max_abs_error"), ".2g"),
            _value(metrics.get("snr_db"), ".1f"),
            _value(metrics.get("top1_agreement"), ".2f", scale=100),
        ]
        for key, metrics in checks.items()
    ]
    limits = "" if task.reference_name == KERAS else " (no limits: the reference is not Keras)"
    header = ["format", "scheme", "output", "max abs error", "SNR (dB)", "same class (%)"]
    return [
        "",
        f"Outputs on {task.source}{limits}",
        output.table(header, rows, right=(3, 4, 5)),
        *notes,
    ]


def _value(check: Check | None, spec: str, *, scale: int = 1) -> str:
    return "-" if check is None else format(scale * check.value, spec)
