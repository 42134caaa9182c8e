"""``edgeattn validate``"""

from __future__ import annotations

from pathlib import Path

import click

from edgeattn.cli import diagnosis, options, output
from edgeattn.cli.command import Command
from edgeattn.cli.terminal import styled_line
from edgeattn.cli.values import Choice, Integer
from edgeattn.cli.verdict import verdict_text


@click.command("validate", cls=Command)
@click.argument("bundle", type=options.PATH)
@options.artifact_selection
@click.option(
    "--data",
    type=options.PATH,
    help="Dataset to evaluate on too (.npz, .npy or .csv), with labels 'y' for the task's score.",
)
@options.raw_data_option
@options.ignore_option
@options.max_drop_option("drop of the task's score or share of changed answers")
@click.option(
    "--jobs",
    type=Integer(min=1),
    help="Number of parallel worker processes. Default: one per core.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Dask scheduler whose workers evaluate on --data, such as tcp://HOST:8786.",
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
    help="Latencies for the recommendation and the report: the output of edgeattn bench --json.",
)
@click.option(
    "--compare",
    type=options.PATH,
    metavar="OLD",
    help="Bundle to compare with, validated in the same way. A regression has exit code 7.",
)
@click.option(
    "--compare-bench",
    type=options.PATH,
    help="Latencies of OLD, as --bench has those of BUNDLE.",
)
@click.option(
    "--compare-limit",
    "compare_limits",
    metavar="NAME=NUMBER",
    multiple=True,
    help="Largest accepted change from OLD; repeatable. Shares: size (default 0.1), latency (0.2), "
    "error (inf). Points: score (0.01), attention (0.01).",
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
    type=Choice(["error", "failure", "skipped"]),
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
    raw_data: Path | None,
    max_drop: float,
    jobs: int | None,
    scheduler: str | None,
    resume: bool,
    resume_file: Path | None,
    model: Path | None,
    reference: Path | None,
    loading: options.ModelLoading,
    limits: tuple[str, ...],
    explain: bool,
    report: Path | None,
    bench: Path | None,
    compare: Path | None,
    compare_bench: Path | None,
    compare_limits: tuple[str, ...],
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

    With --compare, the artifacts of an older bundle are validated too. A table shows what changed
    in verdict, size, latency, score and errors, and a change beyond the limits is a regression.
    """
    from edgeattn.api.foreign_file import is_foreign_file, next_command
    from edgeattn.api.validate import validate
    from edgeattn.api.validation_request import checkpoint_path

    checkpoint = checkpoint_path(bundle, data or raw_data, resume, resume_file)
    try:
        with output.progress(quiet or as_json):
            result = validate(
                bundle,
                **vars(selection),
                data=data,
                raw_data=raw_data,
                ignore=loading.ignore,
                max_drop=max_drop if options.was_given("max_drop") else None,
                limits=limits,
                jobs=jobs,
                scheduler=scheduler,
                resume=resume,
                resume_file=resume_file,
                model=model,
                reference=reference,
                custom_objects=loading.custom_objects,
                architecture=loading.architecture,
                signature=loading.signature,
                trust=loading.trust,
                explain=explain,
                report=report,
                bench=bench,
                compare=compare,
                compare_bench=compare_bench,
                compare_limits=compare_limits,
                vocabulary=vocabulary,
                junit=junit,
                junit_inconclusive=junit_inconclusive
                if options.was_given("junit_inconclusive")
                else None,
                **vars(target),
                require_signature=require_signature,
            )
    except (KeyboardInterrupt, SystemExit):
        if checkpoint is not None and checkpoint.exists():
            output.echo(
                f"Unfinished work is in {checkpoint}. Rerun the command to resume.", err=True
            )
        raise
    if result.notes and not quiet:
        output.echo(*(styled_line(f"note: {note}", err=True) for note in result.notes), err=True)
    if as_json:
        output.emit_json(result.to_dict())
        return result.exit_code
    command = next_command(bundle, model) if is_foreign_file(bundle) else str(result.bundle.path)
    output.echo(verdict_text(result, command, quiet=quiet))
    if result.diagnoses is not None:
        output.echo(*diagnosis.format_lines(result.diagnoses))
    return result.exit_code
