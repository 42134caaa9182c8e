"""``edgeattn validate``"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeattn.cli import explained as explaining
from edgeattn.cli import options, output
from edgeattn.cli.convert import why
from edgeattn.errors import UsageError

if TYPE_CHECKING:
    from edgeattn.bundle import Bundle
    from edgeattn.checks import Check
    from edgeattn.task import TaskReport
    from edgeattn.trial import Stream
    from edgeattn.validation import ArtifactReport, Report


@click.command("validate")
@click.argument("bundle", type=options.PATH)
@options.formats_option
@options.schemes_option
@click.option(
    "--data",
    type=options.PATH,
    help="Samples of any number, with labels 'y' for the task's accuracy: .npz, .npy or .csv.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Runtimes that work side by side, to the same result. Default: a core each.",
)
@click.option(
    "--resume", is_flag=True, help="Keep what is done of --data, and go on with what was kept."
)
@click.option(
    "--resume-file",
    type=options.PATH,
    help="Where --resume keeps it. Default: beside the bundle.",
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
@click.option(
    "--explain",
    is_flag=True,
    help="Take the files apart, and name the operator that goes wrong first and the cure.",
)
@click.option("--report", type=options.PATH, help="Write a page for people: one .html file.")
@click.option("--junit", type=options.PATH, help="Write JUnit XML, for other people's CI.")
@options.on_option
@options.python_option
@options.ssh_config_option
@options.signature_option
@options.json_option
@options.quiet_option
def command(
    bundle: Path,
    formats: tuple[str, ...],
    schemes: tuple[str, ...],
    data: Path | None,
    jobs: int | None,
    resume: bool,
    resume_file: Path | None,
    model: Path | None,
    custom_objects: Path | None,
    architecture: str | None,
    trust: str | None,
    limits: tuple[str, ...],
    explain: bool,
    report: Path | None,
    junit: Path | None,
    on: str | None,
    python: str | None,
    ssh_config: Path | None,
    require_signature: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Hold the artifacts of BUNDLE to what Keras computed, which the bundle brings with it.

    Needs no TensorFlow: run it on the device. An artifact whose runtime is not installed here is
    "not run". With --data, numbers and task are judged on that too: against Keras where it and the
    model's file are here, else the task against the bundle's float32 artifact.

    With --on or --python the artifacts run there, the same code judges them here, and the stage
    "device" compares the numbers with this machine's.
    """
    from edgeattn.runners import elsewhere
    from edgeattn.validation import Limit, validate_isolated

    opened = options.opened(bundle, require_signature)
    artifacts = opened.select(options.chosen(formats), options.chosen(schemes))
    changed = tuple(Limit.parse(text) for text in limits)
    if data is None and model is not None:
        raise UsageError("--model is for the task, which needs samples: --data FILE")
    unfinished = _resume_file(bundle, data, resume, resume_file)
    if (on or python) and (unfinished or jobs):
        raise UsageError(
            "--jobs and --resume are for work in this place, not with --on or --python."
        )
    if explain and (on or python):
        raise UsageError("--explain takes files apart in this place, not with --on or --python.")
    _check_writable(report, junit, unfinished)
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
            trial = _stream(opened, data, model, how, shown)
        if on is None and python is None:
            found = validate_isolated(
                opened,
                artifacts,
                trial=trial,
                limits=changed,
                jobs=jobs or len(os.sched_getaffinity(0)),
                resume=unfinished,
                on_progress=shown,
            )
        else:
            with elsewhere.at(opened, on, python, config=ssh_config, on_progress=shown) as place:
                found = elsewhere.validate_device(
                    place, opened, artifacts, trial=trial, limits=changed, on_progress=shown
                )
        explained = None
        if explain:
            explained = explaining.explain_found(opened, found, changed, shown)
    finally:
        output.end_progress(shown)
    _write(opened, found, report, junit)
    if as_json:
        told = {} if explained is None else {"explanation": [x.to_json() for x in explained]}
        output.emit_json({**found.to_json(), **told})
    else:
        click.echo(as_text(opened, found, data is not None, quiet))
        if explained is not None:
            click.echo("\n".join(explaining.as_lines(explained)))
    return found.exit_code


def _stream(
    bundle: Bundle,
    data: Path,
    model: Path | None,
    how: dict[str, str | None],
    shown: Callable[[str], None] | None,
) -> Stream:
    from edgeattn import keras_answers
    from edgeattn import trial as trials

    original = keras_answers.original_model(bundle, model)
    stream = trials.open_stream(data, bundle, shown)
    keras = None
    if original is not None:
        keras = keras_answers.keras_of(bundle, original, how, shown)
    if keras is None and model is not None:
        raise UsageError(
            "Keras is not installed here, and --model asks for it.",
            hint="Leave --model out: the bundle's float32 artifact then takes Keras' place.",
        )
    if keras is None and not stream.facts:
        raise trials.no_labels(data.name)
    return stream if keras is None else stream.answered_by(keras)


def _resume_file(bundle: Path, data: Path | None, resume: bool, given: Path | None) -> Path | None:
    if data is None and (resume or given is not None):
        raise UsageError("--resume is for work on samples: --data FILE")
    if given is not None or not resume:
        return given
    beside = bundle.absolute()
    return beside.with_name(f"{beside.name}.{data.stem if data else ''}.unfinished.npz")


def _check_writable(*targets: Path | None) -> None:
    """Before any work: a page that cannot be written is better known now."""
    for target in targets:
        if target is not None and (target.is_dir() or not target.absolute().parent.is_dir()):
            raise UsageError(f"Not a place for a file: {target}")


def _write(bundle: Bundle, found: Report, report: Path | None, junit: Path | None) -> None:
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
    told = "" if judged else ", told and not judged: numbers are judged by Keras alone"
    lines = ["", f"Numbers on {task.source}, compared with {task.reference}{told}:"]
    metrics = ("max_abs_error", "snr_db", "top1_agreement")
    cells = [
        [label, name, *(_told(checks.get(metric)) for metric in metrics)]
        for (label, name), checks in rows.items()
    ]
    header = ["artifact", "output", "max abs error", "SNR, dB", "same class"]
    return [*lines, output.table(header, cells, right=(2, 3, 4))]


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
