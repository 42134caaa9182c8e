"""``edgeattn convert``"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeattn.cli import options, output
from edgeattn.cli.conversion import conversion_summary, cost_lines
from edgeattn.metrics.verdict import FEW_SAMPLES, NOT_PROVEN, PRECISION
from edgeattn.printable import Text
from edgeattn.schemes import EXPERIMENTAL

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.metrics.limits import Check
    from edgeattn.validation.report import ArtifactReport
    from edgeattn_converters import Conversion


@click.command("convert")
@click.argument("model", type=options.PATH)
@click.option(
    "-o", "--output", "target", type=options.PATH, help="The bundle. Default: MODEL.edge."
)
@options.formats_option
@options.schemes_option(
    "Precision scheme; repeatable. Default: all but int16x8, which is slow on these targets, and "
    "int4, which is experimental; int8 and int16x8 need --calibration."
)
@click.option(
    "--target",
    "targets",
    type=click.Choice(["litert", "tflite-runtime", "onnxruntime", "tflite-micro"]),
    multiple=True,
    help="Runtime the files are for; repeatable. Default: litert and onnxruntime.",
)
@click.option(
    "--calibration",
    type=options.PATH,
    help="Real inputs for calibration, other than --samples: .npz, .npy or .csv.",
)
@options.raw_calibration_option
@click.option(
    "--integer-io",
    is_flag=True,
    help="int8 and int16x8: integer inputs and outputs, with their scales in the manifest.",
)
@click.option(
    "--integer-only",
    is_flag=True,
    help="int8 and int16x8: no float tensor at all, and integer inputs and outputs; otherwise exit "
    "code 3 and a list of the operators that prevent it.",
)
@click.option(
    "--arena",
    type=click.IntRange(min=1),
    metavar="BYTES",
    help="Largest arena of a file for tflite-micro; a larger file is not written.",
)
@click.option(
    "--attention-precision",
    type=click.Choice(["auto", "int8", "int16", "float32"]),
    default="auto",
    show_default=True,
    help="Precision of attention's scores and softmax: int8 in int8 files, int16 in int16x8 files, "
    "float32 in both; auto keeps maps within their limits.",
)
@click.option(
    "--allow-float-fallback",
    is_flag=True,
    help="Keep files that do not achieve their scheme, instead of failing.",
)
@click.option("--opset", type=click.IntRange(13, 21), help="ONNX operator set. Default: 18.")
@options.model_source_by_length
@click.option(
    "--attention",
    "attention_layers",
    metavar="LAYER",
    multiple=True,
    help="Export this layer's softmax as an attention map too; repeatable.",
)
@click.option("--no-attention", is_flag=True, help="Do not export attention maps.")
@click.option(
    "--lowering",
    type=click.Choice(["auto", "unrolled", "chunked", "fused"]),
    default="auto",
    show_default=True,
    help="Form of recurrences in TFLite: auto aims at speed, fused gives the smallest file.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Batch size of TFLite files. ONNX files accept any, or 1 if quantized dynamically.",
)
@click.option(
    "--states",
    is_flag=True,
    help="Make states of recurrent layers inputs and outputs, to process sequences in parts.",
)
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@options.json_option
@options.quiet_option
@options.verbose_option
def command(
    model: Path,
    target: Path | None,
    formats: tuple[str, ...],
    schemes: tuple[str, ...],
    targets: tuple[str, ...],
    calibration: Path | None,
    raw_calibration: Path | None,
    integer_io: bool,
    integer_only: bool,
    arena: int | None,
    attention_precision: str,
    allow_float_fallback: bool,
    opset: int | None,
    loading: options.ModelLoading,
    attention_layers: tuple[str, ...],
    no_attention: bool,
    lowering: str,
    batch: int,
    states: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Convert a trained Keras MODEL to TFLite and ONNX, and validate the files.

    MODEL is a .h5 or .keras file or a SavedModel folder. Every file runs in its runtime on several
    sequences, one after the other, and its outputs and attention maps are compared with those of
    Keras.
    """
    from edgeattn.api.convert import convert

    with output.progress(quiet or as_json):
        result = convert(
            model,
            target,
            formats=formats,
            schemes=schemes,
            targets=targets,
            calibration=calibration,
            raw_calibration=raw_calibration,
            **vars(loading),
            attention=not no_attention,
            attention_layers=attention_layers,
            attention_precision=attention_precision,
            integer_io=integer_io,
            integer_only=integer_only,
            arena=arena,
            allow_float_fallback=allow_float_fallback,
            opset=opset,
            lowering=lowering,
            batch=batch,
            states=states,
            force=force,
        )
    if as_json:
        output.emit_json(result.to_dict())
    for conversion in () if as_json else result.conversions:
        output.echo(*as_lines(conversion, verbose=verbose))
    return result.exit_code


def as_lines(conversion: Conversion, *, verbose: bool) -> Iterator[str]:
    from edgeattn.api.convert import recommendation_of

    manifest = conversion.bundle.manifest
    model, reference, reports = manifest.model, manifest.reference, conversion.report.artifacts
    yield (
        f"{model['file']}: {model['parameters']:,} parameters, {output.size(model['bytes'])}, "
        f"saved by Keras {model['keras_version'] or 'of an unknown version'}"
    )
    yield from (f"note: {note}" for note in model["notes"])
    yield from ("", _table(conversion), "")
    yield (
        f"Compared with Keras on {manifest.reference_samples} and "
        f"{reference['edge_cases']} edge cases, run consecutively."
    )
    if reference.get("lengths"):
        yield (
            "Files for sequences of any length were compared at "
            f"{', '.join(map(str, reference['lengths']))} steps too."
        )
    if reference["not_finite"]:
        yield f"Rows left out because Keras' own outputs are not finite: {reference['not_finite']}"
    if reference["left_out"] and verbose:
        yield (
            "Rows left out because Keras' own outputs change when an input changes in its last "
            f"digit: {reference['left_out']}"
        )
    yield from (f"warning: {text}" for text in conversion.report.warnings)
    yield from conversion_summary(reports)
    if model["attention"] and any(report.artifact.attention for report in reports):
        yield f"Attention maps: {', '.join(spec['name'] for spec in model['attention'])}"
    for report in reports:
        if reason := report.artifact.achieved.get("fixed_length"):
            yield f"{report.artifact.label}: one sequence length only. {reason}"
        yield from _advice(report)
        summary = report.artifact.achieved.get("summary")
        if summary and verbose:
            yield f"{report.artifact.label}: {summary}"
    yield from (f"{f['format']} {f['scheme']}: {f['reason']}" for f in conversion.failures)
    yield recommendation_of(conversion).line
    yield f"Wrote {conversion.bundle.path}"
    yield from settling_command(str(conversion.bundle.path), reports)


def _table(conversion: Conversion) -> Text:
    arenas = [item.artifact.achieved.get("arena_bytes") for item in conversion.report.artifacts]
    micro = any(arenas)
    # Only models that accept several lengths have a column for them.
    free = any(_accepts_lengths(report.artifact) for report in conversion.report.artifacts)
    header = [
        *("verdict", "format", "scheme", *(["steps"] if free else [])),
        "flash (kB)" if micro else "size (kB)",
        *(["arena (kB)"] if micro else []),
        *("quantized weights (%)", "integer ops"),
        "max abs error",
    ]
    rows = []
    for report in conversion.report.artifacts:
        artifact = report.artifact
        rows.append(
            [
                report.verdict,
                artifact.format,
                _achieved_scheme(artifact),
                *([_steps(artifact)] if free else []),
                f"{artifact.bytes / 1000:,.1f}",
                *([_arena(artifact)] if micro else []),
                _quantized_weights(artifact),
                _integer_operators(artifact),
                output.number(report.max_abs_error),
            ]
        )
    rows += [
        [
            "not converted" if failure["required"] else "not achieved",
            *(failure["format"], _scheme(failure["scheme"]), *["-"] * (len(header) - 3)),
        ]
        for failure in conversion.failures
    ]
    return output.table(header, rows, right=range(3, len(header)))


def _arena(artifact: Artifact) -> str:
    """The RAM that a file for microcontrollers needs."""
    arena = artifact.achieved.get("arena_bytes")
    return "-" if arena is None else f"{arena / 1000:,.1f}"


def _accepts_lengths(artifact: Artifact) -> bool:
    """Whether the model accepts sequences of any length, even if the artifact does not."""
    return bool(artifact.free_axes) or "fixed_length" in artifact.achieved


def _steps(artifact: Artifact) -> str:
    """The sequence length that an artifact accepts."""
    if artifact.free_axes:
        return "any"
    lengths = {spec.shape[1] for spec in artifact.inputs if len(spec.shape) > 1}
    return ", ".join(map(str, sorted(lengths, key=str)))


def _scheme(name: str) -> str:
    return f"{name} (experimental)" if name in EXPERIMENTAL else name


def _achieved_scheme(artifact: Artifact) -> str:
    """The scheme, and the one that the file achieved if it is another."""
    achieved = artifact.achieved.get("scheme", artifact.scheme)
    if achieved == artifact.scheme:
        return _scheme(artifact.scheme)
    return f"{artifact.scheme} -> {achieved}"


def _quantized_weights(artifact: Artifact) -> str:
    """The percentage of weights that have the data type of the scheme."""
    weights: Mapping[str, int] = artifact.achieved.get("weights", {})
    total = sum(weights.values())
    if artifact.scheme == "float32" or not total:
        return "-"
    dtype = artifact.scheme if artifact.scheme in weights else "int8"
    return f"{100 * weights.get(dtype, 0) / total:.0f}"


def _integer_operators(artifact: Artifact) -> str:
    """How many of the operators compute in integers, if the scheme quantizes activations."""
    if artifact.scheme not in ("int8", "int16x8"):
        return "-"
    counts = {
        dtype: sum(kinds.values())
        for dtype, kinds in artifact.achieved.get("computes_in", {}).items()
    }
    return f"{counts.get('int8', 0) + counts.get('int16', 0)} / {sum(counts.values())}"


def _advice(report: ArtifactReport) -> Iterator[str]:
    """At most one line: why an artifact does not pass, or how to change what was converted."""
    artifact = report.artifact
    if lines := failure_lines(report):
        yield lines[0]
    elif report.explained:
        yield from cost_lines(report)
    elif artifact.achieved.get("fallback"):
        yield f"{artifact.label}: did not achieve its scheme (kept by --allow-float-fallback)."
    elif artifact.scheme == "int16x8":
        # The note that begins with "slow on this target".
        notes = artifact.achieved.get("notes", ())
        yield from (f"{artifact.label}: {note}." for note in notes if note.startswith("slow"))
    elif "cost" in artifact.achieved and artifact.scheme == "int8":
        yield (
            f"{artifact.label}: operators that would exceed the limits in int8 stay float32; "
            "--attention-precision int8 quantizes them."
        )


def failure_lines(report: ArtifactReport) -> list[str]:
    """A line for each reason why an artifact does not pass or does not run."""
    label = report.artifact.label
    lines = [f"{label}: {report.reason}"] if report.reason else []
    lines += [f"{label}: {_missed_limit(check)}" for check in report.failed]
    # A line on the cost of the precision says more about the others.
    return lines + [
        f"{label}: {reason}. {_missed_limit(check)}"
        for reason, check in report.open_limits
        if reason != PRECISION
    ]


def _missed_limit(check: Check) -> str:
    detail = f": {check.detail}" if check.detail else ""
    return f"{check.name} is {check.value:.3g} (limit {check.relation} {check.limit:.3g}){detail}"


def settling_command(arguments: str, reports: Sequence[ArtifactReport]) -> Iterator[str]:
    """How to decide limits that were missed on synthetic or on too few samples.

    ``arguments`` of ``edgeattn validate`` name what to validate.
    """
    reasons = {reason for report in reports for reason, _ in report.open_limits}
    command = f"edgeattn validate {arguments} --data FILE"
    if NOT_PROVEN in reasons:
        yield (
            "Limits that were missed on synthetic samples prove nothing. Validate on real ones: "
            f"{command}"
        )
    elif FEW_SAMPLES in reasons:
        yield f"Validate on more samples to decide: {command}"
