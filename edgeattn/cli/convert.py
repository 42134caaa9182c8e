"""``edgeattn convert``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeattn.cli import options, output
from edgeattn.errors import UsageError
from edgeattn.schemes import EXPERIMENTAL, SCHEMES

if TYPE_CHECKING:
    from edgeattn_converters import Conversion


@click.command("convert")
@click.argument("model", type=options.PATH)
@click.option("-o", "--output", "target", type=options.PATH, help="The bundle. Default: MODEL.edge")
@options.formats_option
@click.option(
    "--scheme",
    "schemes",
    type=click.Choice([*SCHEMES, *EXPERIMENTAL, options.ALL]),
    multiple=True,
    help="Precision scheme; repeatable. Default: all; int8 and int16x8 need --calibration. int4 is "
    "experimental, and made where it is named only.",
)
@click.option(
    "--target",
    "targets",
    type=click.Choice(["litert", "tflite-runtime", "onnxruntime"]),
    multiple=True,
    help="Runtime the files are for; repeatable. Default: litert and onnxruntime.",
)
@click.option(
    "--calibration",
    type=options.PATH,
    help="Real inputs to measure activations on, other than --samples: .npz, .npy or .csv.",
)
@click.option(
    "--integer-io", is_flag=True, help="int8: integers in and out, as the manifest's scales say."
)
@click.option(
    "--attention-precision",
    type=click.Choice(["auto", "int8", "int16", "float32"]),
    default="auto",
    show_default=True,
    help="int8: how attention's softmax and scores compute; auto keeps the map within its limits.",
)
@click.option(
    "--allow-float-fallback",
    is_flag=True,
    help="Keep a file that did not reach its scheme; what it reached is told.",
)
@click.option(
    "--opset",
    type=click.IntRange(13, 21),
    help="ONNX operator set. Default: 18.",
)
@options.reference_options
@options.loading_options
@click.option(
    "--attention",
    "attention_layers",
    metavar="LAYER",
    multiple=True,
    help="Tell this layer's softmax as an attention map too; repeatable.",
)
@click.option(
    "--no-attention", is_flag=True, help="Leave the attention weights out of the outputs."
)
@click.option(
    "--lowering",
    type=click.Choice(["auto", "unrolled", "chunked", "fused"]),
    default="auto",
    show_default=True,
    help="How TFLite computes recurrences; fused is the smallest, auto aims at the fastest.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Sequences a call of the TFLite file takes; ONNX takes any number.",
)
@click.option(
    "--states",
    is_flag=True,
    help="Recurrent layers' states as inputs and outputs, for sequences that come in parts.",
)
@click.option("--force", is_flag=True, help="Replace a bundle that exists.")
@options.json_option
@options.quiet_option
def command(
    model: Path,
    target: Path | None,
    formats: tuple[str, ...],
    schemes: tuple[str, ...],
    targets: tuple[str, ...],
    calibration: Path | None,
    integer_io: bool,
    attention_precision: str,
    allow_float_fallback: bool,
    opset: int | None,
    samples: Path | None,
    time_steps: int | None,
    custom_objects: Path | None,
    architecture: str | None,
    trust: str | None,
    attention_layers: tuple[str, ...],
    no_attention: bool,
    lowering: str,
    batch: int,
    states: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Convert a trained Keras MODEL (.h5 or .keras) to TFLite and ONNX, and check them against it.

    Every file that is made is run in its own runtime on several sequences, one after the other, and
    compared with what Keras computes. The table says what was found.
    """
    from edgeattn.inspection import NEEDS_HOST, check_host

    check_host()
    try:
        from edgeattn_converters import convert
    except ImportError as error:
        raise UsageError(f"The converters cannot be imported: {error}", hint=NEEDS_HOST) from error
    with output.progress(quiet or as_json):
        made = convert(
            model,
            target,
            formats=options.chosen(formats),
            schemes=options.chosen(schemes),
            targets=targets,
            calibration=calibration,
            integer_io=integer_io,
            attention_precision=attention_precision,
            allow_float_fallback=allow_float_fallback,
            opset=opset,
            samples=samples,
            time_steps=time_steps,
            custom_objects=custom_objects,
            architecture=architecture,
            trust=trust,
            attention=not no_attention,
            attention_layers=attention_layers,
            lowering=lowering,
            batch=batch,
            states=states,
            force=force,
        )
    if as_json:
        output.emit_json(as_document(made))
    else:
        click.echo(as_text(made))
    return made.exit_code


def as_document(made: Conversion) -> dict[str, Any]:
    """The keys that scripts may rely on."""
    return {
        "bundle": str(made.bundle.path),
        "artifacts": [
            {
                "format": report.artifact.format,
                "scheme": report.artifact.scheme,
                "path": report.artifact.path,
                "bytes": report.artifact.bytes,
                "max_abs_error": report.max_abs_error,
                "verdict": report.verdict,
                "achieved": dict(report.artifact.achieved),
                "reason": report.reason,
            }
            for report in made.report.artifacts
        ],
        "failures": [dict(failure) for failure in made.failures],
        "notes": list(made.bundle.manifest.model["notes"]),
    }


def as_text(made: Conversion) -> str:
    manifest = made.bundle.manifest
    model, reference = manifest.model, manifest.reference
    rows = [
        [
            report.artifact.format,
            _scheme(report.artifact.scheme),
            output.size(report.artifact.bytes),
            output.number(report.max_abs_error),
            report.verdict,
        ]
        for report in made.report.artifacts
    ]
    rows += [[f["format"], f["scheme"], "-", "-", "not made"] for f in made.failures]
    header = ["format", "scheme", "size", "max abs error", "verdict"]
    lines = [
        f"{model['file']}: {model['parameters']:,} parameters, {output.size(model['bytes'])}, "
        f"saved by Keras {model['keras_version'] or 'of an unknown version'}",
        *(f"note: {note}" for note in model["notes"]),
        "",
        output.table(header, rows, right=(2, 3)),
        "",
        f"Compared with Keras on {reference['samples']} samples "
        f"({reference['source']}) and {reference['edge_cases']} edge cases, in a row.",
    ]
    if reference["left_out"]:
        lines.append(
            f"{reference['left_out']} extreme edge cases were left out: there Keras itself answers "
            "otherwise when an input changes in its last digit."
        )
    if model["attention"] and any(report.artifact.attention for report in made.report.artifacts):
        lines.append(f"Attention maps: {', '.join(spec['name'] for spec in model['attention'])}")
    lines += [
        f"{report.artifact.label}: {report.artifact.achieved['summary']}"
        for report in made.report.artifacts
        if report.artifact.achieved.get("summary")
    ]
    for report in made.report.artifacts:
        lines += why(report)
    lines += [f"{f['format']} {f['scheme']}: {f['reason']}" for f in made.failures]
    lines.append(f"Wrote {made.bundle.path}")
    return "\n".join(lines)


def _scheme(name: str) -> str:
    return f"{name} (experimental)" if name in EXPERIMENTAL else name


def why(report: Any) -> list[str]:
    """A line for each thing that failed an artifact, or kept it from running."""
    lines = [f"{report.artifact.label}: {report.reason}"] if report.reason else []
    for check in report.failed:
        where = f" of {check.output}" if check.output else ""
        lines.append(
            f"{report.artifact.label}: {check.metric}{where} is {check.value:.3g}, "
            f"and must be {check.better} {check.limit:.3g}"
        )
    return lines
