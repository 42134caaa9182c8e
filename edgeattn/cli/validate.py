"""``edgeattn validate``"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeattn.cli import options, output
from edgeattn.cli.convert import why
from edgeattn.errors import UsageError

if TYPE_CHECKING:
    from edgeattn.bundle import Bundle
    from edgeattn.task import TaskReport
    from edgeattn.trial import Trial
    from edgeattn.validation import ArtifactReport, Report


@click.command("validate")
@click.argument("bundle", type=options.PATH)
@options.formats_option
@options.schemes_option
@click.option(
    "--data",
    type=options.PATH,
    help="Samples with labels 'y', for the task's accuracy: an .npz.",
)
@click.option(
    "--model",
    type=options.PATH,
    help="The Keras file that the bundle was made of. Default: the one beside the bundle.",
)
@click.option("--custom-objects", type=options.PATH, help="A .py file with the model's own layers.")
@click.option(
    "--architecture",
    metavar="FILE.json|FILE.py:FUNCTION",
    help="The architecture of a file that holds weights only.",
)
@click.option(
    "--trust", metavar="SHA256", help="Load this one file though it was refused as unsafe."
)
@click.option(
    "--limit",
    "limits",
    metavar="[OUTPUT:]NAME=NUMBER",
    multiple=True,
    help="Another limit than the scheme's, for all outputs or one; repeatable.",
)
@click.option("--report", type=options.PATH, help="Write a page for people: one .html file.")
@click.option("--junit", type=options.PATH, help="Write JUnit XML, for other people's CI.")
@options.json_option
@options.quiet_option
def command(
    bundle: Path,
    formats: tuple[str, ...],
    schemes: tuple[str, ...],
    data: Path | None,
    model: Path | None,
    custom_objects: Path | None,
    architecture: str | None,
    trust: str | None,
    limits: tuple[str, ...],
    report: Path | None,
    junit: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Hold the artifacts of BUNDLE to what Keras computed, which the bundle brings with it.

    Needs no TensorFlow: run it on the device. An artifact whose runtime is not installed here is
    "not run". With --data, the task is judged too: against Keras where it and the model's file are
    here, else against the bundle's float32 artifact.
    """
    from edgeattn.bundle import Bundle
    from edgeattn.validation import Limit, validate_isolated

    opened = Bundle.open(bundle)
    artifacts = opened.select(options.chosen(formats), options.chosen(schemes))
    changed = tuple(Limit.parse(text) for text in limits)
    if data is None and model is not None:
        raise UsageError("--model is for the task, which needs samples: --data FILE")
    _check_writable(report, junit)
    shown = output.progress(quiet or as_json)
    try:
        trial = None
        if data is not None:
            opened.verify()
            how = {
                "custom_objects": None if custom_objects is None else str(custom_objects),
                "architecture": architecture,
                "trust": trust,
            }
            trial = _trial(opened, data, model, how, shown)
        found = validate_isolated(opened, artifacts, trial=trial, limits=changed, on_progress=shown)
    finally:
        output.end_progress(shown)
    _write(opened, found, trial, report, junit)
    if as_json:
        output.emit_json(found.to_json())
    else:
        click.echo(as_text(opened, found, data is not None, quiet))
    return found.exit_code


def _trial(
    bundle: Bundle,
    data: Path,
    model: Path | None,
    how: dict[str, str | None],
    shown: Callable[[str], None] | None,
) -> Trial:
    from edgeattn import trial as trials

    trial = trials.read(data, bundle, shown)
    original = trials.original_model(bundle, model)
    if original is None:
        return trial
    answered = trials.ask_keras(trial, bundle, original, how)
    if answered is None and model is not None:
        raise UsageError(
            "Keras is not installed here, and --model asks for it.",
            hint="Leave --model out: the bundle's float32 artifact then takes Keras' place.",
        )
    return answered or trial


def _check_writable(*targets: Path | None) -> None:
    """Before any work: a page that cannot be written is better known now."""
    for target in targets:
        if target is not None and (target.is_dir() or not target.absolute().parent.is_dir()):
            raise UsageError(f"Not a place for a file: {target}")


def _write(
    bundle: Bundle, found: Report, trial: Trial | None, report: Path | None, junit: Path | None
) -> None:
    if report is not None:
        from edgeattn.report import write_html

        write_html(report, bundle, found)
    if junit is not None:
        from edgeattn.report.junit import write_junit

        write_junit(junit, bundle, found)


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
        lines += why(item)
    if with_task:
        lines += ["", *_task_lines(report.artifacts)]
    if not quiet:
        reference = bundle.manifest.reference
        missing = "Device: not run." if with_task else "Task and device: not run."
        lines += [
            "",
            f"Held to Keras on {reference['samples']} samples ({reference['source']}) and "
            f"{reference['edge_cases']} edge cases. {missing}",
        ]
    lines.append(f"Verdict: {report.verdict}")
    return "\n".join(lines)


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
    for label, task in tasks:
        lines += _task_notes(label, task)
    lines += [f"note: {note}" for note in first.notes]
    return lines


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
