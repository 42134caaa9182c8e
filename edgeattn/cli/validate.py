"""``edgeattn validate``"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeattn import files
from edgeattn.cli import diagnosis, options, output, stored_file
from edgeattn.cli.verdict import verdict_text
from edgeattn.errors import UsageError

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.evaluation.file_dataset import FileDataset
    from edgeattn.metrics.limits import Limit
    from edgeattn.validation.report import Report


@click.command("validate")
@click.argument("bundle", type=options.PATH)
@options.artifact_selection
@click.option(
    "--data",
    type=options.PATH,
    help="Dataset to evaluate on too (.npz, .npy or .csv), with labels 'y' for the task's score.",
)
@options.ignore_option
@options.max_drop_option("drop of the task's score or share of changed answers")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Number of parallel worker processes. Default: one per core.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Store unfinished work on --data in a checkpoint, and resume from it if it exists.",
)
@click.option(
    "--resume-file",
    type=options.PATH,
    help="Checkpoint of --resume. Default: BUNDLE.DATA.unfinished.npz, beside the bundle.",
)
@click.option(
    "--model",
    type=options.PATH,
    help="Keras file that BUNDLE was converted from. Default: the one beside the bundle.",
)
@click.option(
    "--reference",
    type=options.PATH,
    help="For a .tflite or .onnx file, instead of --model: an .npz file with arrays input/NAME and "
    "output/NAME.",
)
@options.model_loading
@click.option(
    "--limit",
    "limits",
    metavar="[OUTPUT:]NAME=NUMBER",
    multiple=True,
    help="Limit to use instead of the scheme's, for all outputs or for one; repeatable.",
)
@click.option(
    "--explain",
    is_flag=True,
    help="Find the first operator that computes wrong values, and suggest a remedy.",
)
@click.option("--report", type=options.PATH, help="HTML report to write.")
@click.option(
    "--bench",
    type=options.PATH,
    help="Latencies to show in the report: the output of edgeattn bench --json.",
)
@click.option(
    "--vocabulary",
    type=options.PATH,
    help="Words for attention maps of texts in the report: one per line, or JSON (a list, or "
    "{word: number}).",
)
@click.option("--junit", type=options.PATH, help="JUnit XML file to write, for CI systems.")
@click.option(
    "--junit-inconclusive",
    type=click.Choice(["error", "failure", "skipped"]),
    default="error",
    show_default=True,
    help="What --junit writes for a result that is inconclusive or did not run.",
)
@options.target
@options.run_limits_options
@options.signature_option
@options.json_option
@options.quiet_option
def command(
    bundle: Path,
    selection: options.ArtifactSelection,
    data: Path | None,
    max_drop: float,
    jobs: int | None,
    resume: bool,
    resume_file: Path | None,
    model: Path | None,
    reference: Path | None,
    loading: options.ModelLoading,
    limits: tuple[str, ...],
    explain: bool,
    report: Path | None,
    bench: Path | None,
    vocabulary: Path | None,
    junit: Path | None,
    junit_inconclusive: str,
    target: options.TargetOptions,
    require_signature: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Compare the artifacts of BUNDLE with the outputs of Keras, which the bundle contains.

    TensorFlow is not needed, so this also runs on the device. An artifact is "not run" if its
    runtime is not installed.

    BUNDLE may also be a .tflite or .onnx file of any converter, to compare with the Keras file
    --model or with the arrays of --reference. The limits are those of the scheme that its weights
    and operators have, or of --scheme.

    With --data, artifacts are also evaluated on your samples. They are compared with Keras if it is
    installed and the model's file is present, otherwise with the bundle's float32 artifact. The
    table then shows the errors on your samples.

    With --on or --python, the artifacts run on that target and are checked on this machine. The
    stage "device" then compares the target's outputs with this machine's.
    """
    from edgeattn.metrics.limits import Limit
    from edgeattn.samples.files import check_ignored
    from edgeattn.validation.limit_names import check_limits, check_task_limits
    from edgeattn.validation.on_target import validate_with_device_stage
    from edgeattn.validation.validate import ValidationOptions, validate_isolated

    is_file = stored_file.is_stored_file(bundle)
    if is_file:
        _check_file_options(bundle, explain=explain, require_signature=require_signature)
        origin = stored_file.Origin(model, reference, data, loading)
        opened = click.get_current_context().with_resource(
            stored_file.open_as_bundle(bundle, selection, origin, quiet=quiet)
        )
    elif reference is not None:
        raise UsageError(
            "--reference has no effect on a bundle, which contains one.", hint="Omit --reference."
        )
    else:
        opened = options.open_bundle(bundle, require_signature)
    artifacts = selection.of(opened)
    overrides = tuple(Limit.parse(text) for text in limits)
    if overrides:
        check_limits(overrides, artifacts, opened.reference())
    if data is None and not is_file:
        _check_data_options(model, loading)
    if data is None:
        check_task_limits(overrides, ())
        _check_max_drop(overrides, labelled=False)
    check_ignored(loading.ignore, data)
    if junit is None and options.was_given("junit_inconclusive"):
        raise UsageError(
            "--junit-inconclusive has no effect without --junit.", hint="Add --junit FILE."
        )
    checkpoint = _checkpoint_path(bundle, data, resume, resume_file)
    if not target.local:
        _check_local(jobs=jobs, resume=checkpoint, explain=explain)
    options.check_writable(report, junit, checkpoint)
    extras = _report_extras(artifacts, report, bench, vocabulary)
    try:
        with output.progress(quiet or as_json):
            dataset = None
            if data is not None:
                dataset = _open_dataset(opened, artifacts, data, model, loading)
                check_task_limits(overrides, tuple(dataset.label_summaries))
                _check_max_drop(overrides, labelled=bool(dataset.label_summaries))
            validation = ValidationOptions(
                overrides, jobs or len(os.sched_getaffinity(0)), checkpoint, max_drop
            )
            if target.local:
                result = validate_isolated(opened, artifacts, dataset=dataset, options=validation)
            else:
                with target.open(opened) as opened_target:
                    result = validate_with_device_stage(
                        opened_target, opened, artifacts, dataset=dataset, options=validation
                    )
            diagnoses = None
            if explain:
                diagnoses = diagnosis.diagnose_report(opened, result, overrides)
    except (KeyboardInterrupt, SystemExit):
        if checkpoint is not None and checkpoint.exists():
            output.echo(
                f"Unfinished work is in {checkpoint}. Rerun the command to resume.", err=True
            )
        raise
    if diagnoses is not None:
        extras["explanations"] = diagnosis.messages_by_artifact(diagnoses)
    _write_reports(opened, result, report, extras)
    if junit is not None:
        from edgeattn.report.junit import write_junit

        write_junit(junit, opened, result, inconclusive=junit_inconclusive)
    if as_json:
        document = result.to_json()
        if diagnoses is not None:
            document["explanation"] = [item.to_json() for item in diagnoses]
        output.emit_json(document)
    else:
        command = stored_file.next_command(bundle, model) if is_file else str(opened.path)
        output.echo(verdict_text(opened, result, command, quiet=quiet))
        if diagnoses is not None:
            output.echo(*diagnosis.format_lines(diagnoses))
    if checkpoint is not None:
        # Not earlier: a command that is killed while it writes reports loses no work.
        files.remove(checkpoint)
    return result.exit_code


def _check_file_options(path: Path, *, explain: bool, require_signature: Path | None) -> None:
    """Raise :class:`UsageError` for options that need a bundle."""
    for name, value in (("explain", explain), ("require-signature", require_signature)):
        if value:
            raise UsageError(
                f"--{name} has no effect on {path.name}, which is no bundle.",
                hint=f"Omit --{name}, or make a bundle of the Keras file: edgeattn convert MODEL",
            )


def _check_local(**values: Any) -> None:
    for name, value in values.items():
        if value:
            raise UsageError(
                f"--{name} works on this machine only.", hint="Omit it, or omit --on and --python."
            )


def _check_data_options(model: Path | None, loading: options.ModelLoading) -> None:
    """Raise :class:`UsageError` for options that need a dataset."""
    if model is not None:
        raise UsageError("--model has no effect without --data.", hint="Add --data FILE.")
    for name in loading.to_json():
        raise UsageError(
            f"--{name.replace('_', '-')} has no effect without --data.", hint="Add --data FILE."
        )


def _check_max_drop(limits: Sequence[Limit], *, labelled: bool) -> None:
    if not options.was_given("max_drop"):
        return
    if not labelled:
        raise UsageError(
            "--max-drop has no effect without labels.", hint="Pass labels with --data."
        )
    for limit in limits:
        if limit.output is None and limit.name in ("max_drop", "retention"):
            raise UsageError(
                f"--max-drop has no effect beside --limit {limit.name}.", hint="Omit one of them."
            )


def _open_dataset(
    bundle: Bundle,
    artifacts: Sequence[Artifact],
    data: Path,
    model: Path | None,
    loading: options.ModelLoading,
) -> FileDataset:
    """The dataset in ``data``, with Keras as its reference if that is available."""
    from edgeattn.evaluation.file_dataset import open_dataset
    from edgeattn.evaluation.keras_reference import find_original, open_keras

    original = find_original(bundle, model)
    float32 = [item for item in bundle.manifest.artifacts if item.scheme == "float32"]
    if original is None and not float32:
        raise UsageError(
            "--data has no reference: the Keras file is not beside the bundle, and the bundle has "
            "no float32 artifact.",
            hint="Pass the Keras file: --model FILE.",
        )
    if original is None:
        for name in loading.to_json():
            raise UsageError(
                f"--{name.replace('_', '-')} has no effect: the Keras file is not beside the "
                "bundle.",
                hint="Pass the Keras file: --model FILE.",
            )
    dataset = open_dataset(data, bundle, loading.ignore)
    keras = None if original is None else open_keras(bundle, original, loading.to_json())
    if keras is not None:
        return dataset.with_keras(keras)
    if model is not None or not float32:
        raise UsageError(
            "--model needs Keras, which is not installed.",
            hint="Omit --model to compare with the bundle's float32 artifact instead."
            if float32
            else "Install it with: pip install 'edgeattn[convert]'",
        )
    if tuple(artifacts) == tuple(float32[:1]):
        raise UsageError(
            f"Without Keras, {float32[0].label} would be compared with itself on {data.name}.",
            hint="Select another artifact too, or pass the Keras file on a machine that has Keras.",
        )
    return dataset


def _checkpoint_path(
    bundle: Path, data: Path | None, resume: bool, resume_file: Path | None
) -> Path | None:
    if data is None and (resume or resume_file is not None):
        raise UsageError("--resume has no effect without --data.", hint="Add --data FILE.")
    if resume_file is not None or not resume:
        return resume_file
    beside = bundle.absolute()
    return beside.with_name(f"{beside.name}.{data.stem if data else ''}.unfinished.npz")


def _report_extras(
    artifacts: Sequence[Artifact], report: Path | None, bench: Path | None, vocabulary: Path | None
) -> dict[str, Any]:
    """The optional parts of the HTML report, read and checked before any work starts."""
    if report is None and (bench is not None or vocabulary is not None):
        raise UsageError(
            "--bench and --vocabulary have no effect without --report.",
            hint="Add --report FILE.html.",
        )
    extras: dict[str, Any] = {}
    if report is not None:
        from edgeattn.report import require_libraries

        require_libraries()
    if bench is not None:
        from edgeattn.report.latency_section import read_bench

        extras["bench"] = read_bench(bench)
        measured = {(item["format"], item["scheme"]) for item in extras["bench"]["artifacts"]}
        if not any((item.format, item.scheme) in measured for item in artifacts):
            raise UsageError(
                f"{bench.name} has no latencies of the selected artifacts.",
                hint="Measure them with: edgeattn bench BUNDLE --json > bench.json",
            )
    if vocabulary is not None:
        from edgeattn.report.map_section import has_token_maps
        from edgeattn.report.vocabulary import read_vocabulary

        extras["vocabulary"] = read_vocabulary(vocabulary)
        if not any(has_token_maps(item) for item in artifacts):
            raise UsageError(
                "--vocabulary has no effect: no artifact has an attention map over tokens.",
                hint="Omit --vocabulary.",
            )
    return extras


def _write_reports(
    bundle: Bundle,
    result: Report,
    report: Path | None,
    extras: Mapping[str, Any],
) -> None:
    if report is not None:
        from edgeattn.report import write_html

        write_html(report, bundle, result, **extras)
