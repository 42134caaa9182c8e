"""The report of a validation as text for the terminal, the verdict in the first column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeattn.bundle.dequantized import NOT_COVERED, dequantized_note
from edgeattn.cli import output
from edgeattn.cli.artifact_lines import (
    conversion_summary,
    cost_lines,
    failure_lines,
    settling_command,
)
from edgeattn.cli.bundle_comparison import comparison_lines
from edgeattn.cli.terminal import styled_line
from edgeattn.metrics.verdict import FAIL, INCONCLUSIVE, NOT_RUN
from edgeattn.printable import Text, counted, join_lines

if TYPE_CHECKING:
    from edgeattn.api.validation_result import ValidationResult
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.evaluation.results import TaskReport
    from edgeattn.metrics.limits import Check
    from edgeattn.validation.report import ArtifactReport

# Columns of errors: the key of the headline, the title, the format and the factor.
ERROR_COLUMNS = [
    ("max_abs_error", "max abs error", ".2g", 1),
    ("snr_db", "SNR (dB)", ".1f", 1),
    ("top1_agreement", "same class (%)", ".2f", 100),
    ("equal_values", "equal values (%)", ".2f", 100),
    ("attention_max_abs_error", "max map error", ".2g", 1),
]

Tasks = list[tuple["ArtifactReport", "TaskReport"]]


def verdict_text(result: ValidationResult, command: str, *, quiet: bool) -> Text:
    """The table of artifacts, the checks that failed, and the verdict on the last line.

    If artifacts were compared on the user's data, the numbers of the table are those. ``command``
    has the arguments of ``edgeattn validate``.
    """
    bundle, report, artifacts = result.bundle, result.report, result.artifacts
    stages = [
        stage
        for stage in ("numbers", "attention", "task", "device")
        if stage == "numbers" or any(item.stages[stage] != NOT_RUN for item in artifacts)
    ]
    tasks: Tasks = [(item, item.task) for item in artifacts if item.task is not None]
    on_data = [item for item in artifacts if item.data is not None]
    errors = _error_columns(artifacts) if on_data else ERROR_COLUMNS[:1]
    rows = [
        [
            *_identity(item, item.verdict),
            *(item.stages[stage] for stage in stages),
            *(
                _scaled(None if on_data and not item.data else item.headline[key], spec, scale)
                for key, _, spec, scale in errors
            ),
            item.runtime or "-",
        ]
        for item in artifacts
    ]
    header = ["verdict", "format", "scheme", *stages, *(title for _, title, _, _ in errors)]
    right = range(len(header) - len(errors), len(header))
    lines = []
    if on_data:
        task = next(item.task for item in on_data if item.task is not None)
        lines.append(
            f"On {task.source} ({counted(task.samples, 'sample')}), compared with "
            f"{task.reference_name}:"
        )
    lines.append(output.table([*header, "runtime"], rows, right=right))
    for item in artifacts:
        lines += [*failure_lines(item), *cost_lines(item)]
    lines += settling_command(command, artifacts)
    lines += [styled_line(f"warning: {text}") for text in report.warnings]
    if tasks:
        lines += ["", *_task_lines(tasks), *_dataset_lines(artifacts, tasks[0][1])]
    if not quiet:
        not_covered = [NOT_COVERED] if dequantized_note(bundle.manifest.model) else []
        summary = conversion_summary(artifacts)
        lines += ["", _reference_line(bundle, artifacts), *not_covered, *summary]
    lines.append(styled_line(result.recommendation.line))
    if result.comparison is None:
        lines.append(styled_line(f"Verdict: {report.verdict}"))
    else:
        lines += comparison_lines(result.comparison)
        lines.append(styled_line(f"Verdict: {report.verdict}, {result.comparison.summary}"))
    return join_lines(lines)


def _error_columns(artifacts: Sequence[ArtifactReport]) -> list[tuple[str, str, str, int]]:
    """The columns that any artifact has a value for."""
    return [
        column
        for column in ERROR_COLUMNS
        if any(item.headline[column[0]] is not None for item in artifacts)
    ]


def _identity(item: ArtifactReport, verdict: str) -> list[str]:
    return [verdict, item.artifact.format, item.artifact.scheme]


def _reference_line(bundle: Bundle, artifacts: Sequence[ArtifactReport]) -> str:
    missing = [
        stage
        for stage in ("task", "device")
        if all(item.stages[stage] == NOT_RUN for item in artifacts)
    ]
    manifest = bundle.manifest
    on = (
        f"{manifest.reference_samples} and {counted(manifest.reference['edge_cases'], 'edge case')}"
    )
    expected = manifest.reference.get("expected", "Keras")
    if any(item.data for item in artifacts):
        errors = [error for item in artifacts if (error := item.reference_error) is not None]
        most = f": max abs error {output.number(max(errors))}" if errors else ""
        text = f"Also compared with Keras on the bundle's reference, {on}{most}."
    else:
        text = f"Compared with {expected} on {on}."
    return f"{text} Not run: {', '.join(missing)}." if missing else text


def _task_lines(tasks: Tasks) -> list[str]:
    """The scores of each artifact on the user's samples."""
    reasons = {task.reason for _, task in tasks}
    reason = tasks[0][1].reason
    if len(reasons) == 1 and reason:
        return [f"Task: not run. {reason}"]
    lines = _score_lines(tasks) if any(task.results for _, task in tasks) else []
    lines += [
        f"{item.artifact.label}: task not run. {task.reason}" for item, task in tasks if task.reason
    ]
    # Artifacts with equal results share a line.
    labels: dict[str, list[str]] = {}
    for item, task in tasks:
        for result in task.results:
            if result.verdict in (FAIL, INCONCLUSIVE):
                verb = "fails" if result.verdict == FAIL else "is inconclusive"
                text = f"{result.output} {verb}: {result.summary}. {result.remedy}".rstrip()
                labels.setdefault(text, []).append(item.artifact.label)
    return [*lines, *(f"{', '.join(names)}: {text}" for text, names in labels.items())]


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
            "-" if result.changed is None else f"{100 * result.changed:.2f}",
            result.question,
            "{:.2f} to {:.2f}".format(*(100 * end for end in result.decisive_interval)),
            f"{100 * result.margin:.2f}",
        ]
        for item, result in results
    ]
    header = ["verdict", "format", "scheme", *(["score"] if several else []), "reference (%)"]
    header += [
        "artifact (%)",
        "drop (points)",
        "changed (%)",
        "decided by",
        "95% interval",
        "limit",
    ]
    title = "Task" if several else f"Task: {subjects.pop()}"
    return [
        f"{title} on {first.source} ({counted(results[0][1].samples, 'sample')})",
        f"Reference: {first.reference_name}",
        output.table(header, rows, right=range(len(header))[-7:]),
    ]


def _dataset_lines(artifacts: Sequence[ArtifactReport], task: TaskReport) -> list[str]:
    """The differences of single outputs and maps on the user's samples, if there are several."""
    checks: dict[tuple[str, str, str], dict[str, Check]] = {}
    for item in artifacts:
        for check in item.checks:
            if check.data is not None:
                key = (item.artifact.format, item.artifact.scheme, check.output or "")
                checks.setdefault(key, {})[check.metric] = check
    notes: list[str] = [styled_line(f"note: {note}") for note in task.notes]
    compared = {(c.stage, c.output) for metrics in checks.values() for c in metrics.values()}
    if len(compared) == len({stage for stage, _ in compared}):
        # The first table shows the only output and the only map.
        return notes
    rows = [
        [
            *key,
            *(
                _scaled(None if check is None else check.value, spec, scale)
                for metric, spec, scale in (
                    ("max_abs_error", ".2g", 1),
                    ("snr_db", ".1f", 1),
                    ("top1_agreement", ".2f", 100),
                    ("equal_values", ".2f", 100),
                    ("jensen_shannon", ".2g", 1),
                )
                for check in [metrics.get(metric)]
            ),
        ]
        for key, metrics in checks.items()
    ]
    header = ["format", "scheme", "output or map", "max abs error", "SNR (dB)", "same class (%)"]
    header += ["equal values (%)", "mean divergence (nats)"]
    return ["", f"Outputs on {task.source}", output.table(header, rows, right=range(3, 8)), *notes]


def _scaled(value: float | None, spec: str, scale: int = 1) -> str:
    return "-" if value is None else format(scale * value, spec)
