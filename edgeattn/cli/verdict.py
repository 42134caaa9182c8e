"""A verdict as text for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeattn.cli import output
from edgeattn.cli.convert import failure_lines

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.evaluation.task import TaskReport
    from edgeattn.metrics.limits import Check
    from edgeattn.validation.validate import ArtifactReport, Report


def as_text(bundle: Bundle, report: Report, with_task: bool, quiet: bool) -> str:
    rows = [
        [
            item.artifact.format,
            item.artifact.scheme,
            item.runtime or "-",
            item.stages["numbers"],
            item.stages["attention"],
            *([item.stages["task"]] if with_task else []),
            output.number(item.max_abs_error),
            item.verdict,
        ]
        for item in report.artifacts
    ]
    header = ["format", "scheme", "runtime", "numbers", "attention"]
    header += [*(["task"] if with_task else []), "max abs error", "verdict"]
    lines = [output.table(header, rows, right=(len(header) - 2,))]
    for item in report.artifacts:
        lines += failure_lines(item)
    if with_task:
        lines += ["", *_task_lines(report.artifacts)]
    if not quiet:
        reference = bundle.manifest.reference
        missing = _not_run(report)
        lines += [
            "",
            f"Held to Keras on {reference['samples']} samples ({reference['source']}) and "
            f"{reference['edge_cases']} edge cases.{missing}",
        ]
    lines.append(f"Verdict: {report.verdict}")
    return "\n".join(lines)


def _not_run(report: Report) -> str:
    """The stages that no artifact went through."""
    stages = [
        stage
        for stage in ("task", "device")
        if all(item.stages[stage] == "not run" for item in report.artifacts)
    ]
    return f" {' and '.join(stages).capitalize()}: not run." if stages else ""


def _task_lines(artifacts: tuple[ArtifactReport, ...]) -> list[str]:
    tasks = [(item.artifact.label, item.task) for item in artifacts if item.task is not None]
    if not tasks:
        return []
    first = next((task for _, task in tasks if task.outcomes), tasks[0][1])
    lines = [f"Task on {first.source}, compared with {first.reference}:"]
    rows = [
        [
            label,
            outcome.output,
            f"{outcome.score} of {outcome.samples:,}",
            _share(outcome.before),
            _share(outcome.after),
            f"{100 * outcome.drop:+.2f}",
            f"{100 * outcome.interval[0]:+.2f} to {100 * outcome.interval[1]:+.2f}",
            f"{100 * outcome.margin:.2f}",
            outcome.verdict,
        ]
        for label, task in tasks
        for outcome in task.outcomes
    ]
    header = ["artifact", "output", "score", "before", "after", "drop, points", "95% interval"]
    header += ["allowed", "verdict"]
    if rows:
        lines.append(output.table(header, rows, right=(3, 4, 5, 6, 7)))
    reasons = {task.reason for _, task in tasks}
    if len(reasons) == 1 and first.reason:
        lines = [f"Task: not run. {first.reason}"]
    else:
        for label, task in tasks:
            lines += _task_notes(label, task)
    lines += _numbers_lines(artifacts, first)
    lines += [f"note: {note}" for note in first.notes]
    return lines


def _numbers_lines(artifacts: tuple[ArtifactReport, ...], task: TaskReport) -> list[str]:
    """How far the answers to the user's samples are from the reference's, judged or only told."""
    found = [
        (item.artifact.label, check.output or "", check)
        for item in artifacts
        for check in item.checks
        if check.data is not None
    ]
    rows: dict[tuple[str, str], dict[str, Check]] = {}
    for label, name, check in found:
        rows.setdefault((label, name), {})[check.metric] = check
    if not rows:
        return []
    judged = any(check.limit is not None and check.metric != "non_finite" for *_, check in found)
    lines = ["", f"Numbers on {task.source}, compared with {task.reference}:"]
    metrics = ("max_abs_error", "snr_db", "top1_agreement")
    cells = [
        [label, name, *(_told(checks.get(metric)) for metric in metrics)]
        for (label, name), checks in rows.items()
    ]
    header = ["artifact", "output", "max abs error", "SNR, dB", "same class"]
    lines.append(output.table(header, cells, right=(2, 3, 4)))
    return lines if judged else [*lines, "These are told and judge nothing: only Keras does."]


def _told(check: Check | None) -> str:
    if check is None:
        return "-"
    if check.metric == "top1_agreement":
        return _share(check.value)
    return output.number(check.value) if check.metric != "snr_db" else f"{check.value:.1f}"


def _task_notes(label: str, task: TaskReport) -> list[str]:
    lines = [f"{label}: task not run. {task.reason}"] if task.reason else []
    for outcome in task.outcomes:
        if outcome.verdict != "inconclusive":
            continue
        more = (
            f"about {outcome.needed:,} samples like these would settle it"
            if outcome.needed
            else "the drop lies on the limit itself, and no number of samples would settle it"
        )
        lines.append(f"{label}: {outcome.output} is inconclusive; {more}.")
    return lines


def _share(value: float) -> str:
    return f"{100 * value:.2f}%"
