"""``edgeattn validate``"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeattn.cli import diagnosis, options, output
from edgeattn.cli import verdict as verdicts
from edgeattn.errors import UsageError

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.evaluation.dataset import Stream
    from edgeattn.validation.validate import Report


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
@options.loading_options
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
@click.option(
    "--bench",
    type=options.PATH,
    help="Latencies for the page: what edgeattn bench --json printed.",
)
@click.option(
    "--vocabulary",
    type=options.PATH,
    help="Words for the page's maps of texts: one a line, or JSON of words or {word: number}.",
)
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
    bench: Path | None,
    vocabulary: Path | None,
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
    from edgeattn.targets.target import open_target
    from edgeattn.validation import on_target
    from edgeattn.validation.validate import Limit, validate_isolated

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
    options.check_writable(report, junit, unfinished)
    extras = _extras(report, bench, vocabulary)
    try:
        with output.progress(quiet or as_json):
            trial = None
            if data is not None:
                how = {
                    "custom_objects": None if custom_objects is None else str(custom_objects),
                    "architecture": architecture,
                    "trust": trust,
                }
                trial = _stream(opened, data, model, how)
            if on is None and python is None:
                found = validate_isolated(
                    opened,
                    artifacts,
                    trial=trial,
                    limits=changed,
                    jobs=jobs or len(os.sched_getaffinity(0)),
                    resume=unfinished,
                )
            else:
                with open_target(opened, on, python, config=ssh_config) as place:
                    found = on_target.validate_device(
                        place, opened, artifacts, trial=trial, limits=changed
                    )
            diagnoses = None
            if explain:
                diagnoses = diagnosis.diagnose_report(opened, found, changed)
    except (KeyboardInterrupt, SystemExit):
        if unfinished is not None and unfinished.exists():
            click.echo(f"What is done is kept in {unfinished}; the same command goes on.", err=True)
        raise
    if diagnoses is not None:
        extras["explanations"] = diagnosis.messages_by_artifact(diagnoses)
    _write(opened, found, report, junit, extras)
    if as_json:
        told = {} if diagnoses is None else {"explanation": [x.to_json() for x in diagnoses]}
        output.emit_json({**found.to_json(), **told})
    else:
        click.echo(verdicts.as_text(opened, found, data is not None, quiet))
        if diagnoses is not None:
            click.echo("\n".join(diagnosis.format_lines(diagnoses)))
    return found.exit_code


def _stream(
    bundle: Bundle,
    data: Path,
    model: Path | None,
    how: dict[str, str | None],
) -> Stream:
    from edgeattn.evaluation import dataset as trials
    from edgeattn.evaluation import keras_reference as keras_answers

    original = keras_answers.original_model(bundle, model)
    stream = trials.open_stream(data, bundle)
    keras = None
    if original is not None:
        keras = keras_answers.keras_of(bundle, original, how)
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


def _extras(report: Path | None, bench: Path | None, vocabulary: Path | None) -> dict[str, Any]:
    """What else the page tells; read before any work, and checked."""
    if report is None and (bench is not None or vocabulary is not None):
        raise UsageError("--bench and --vocabulary are for the page: --report FILE.html")
    extras: dict[str, Any] = {}
    if report is not None:
        from edgeattn.report import require_libraries

        require_libraries()
    if bench is not None:
        from edgeattn.report.latency_section import read_bench

        extras["bench"] = read_bench(bench)
    if vocabulary is not None:
        from edgeattn.report.vocabulary import read_vocabulary

        extras["vocabulary"] = read_vocabulary(vocabulary)
    return extras


def _write(
    bundle: Bundle,
    found: Report,
    report: Path | None,
    junit: Path | None,
    extras: Mapping[str, Any],
) -> None:
    if report is not None:
        from edgeattn.report import write_html

        write_html(report, bundle, found, **extras)
    if junit is not None:
        from edgeattn.report.junit import write_junit

        write_junit(junit, bundle, found)
