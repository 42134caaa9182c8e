"""``edgeattn convert``"""

from __future__ import annotations

from pathlib import Path

import click

from edgeattn.cli import options, output
from edgeattn.cli.command import Command, recorded_options
from edgeattn.cli.conversion import conversion_lines
from edgeattn.cli.values import Choice, Integer


@click.command("convert", cls=Command)
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
    type=Choice(["litert", "tflite-runtime", "onnxruntime", "tflite-micro"]),
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
    type=Integer(min=1),
    metavar="BYTES",
    help="Largest arena of a file for tflite-micro; a larger file is not written.",
)
@click.option(
    "--attention-precision",
    type=Choice(["auto", "int8", "int16", "float32"]),
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
@click.option("--opset", type=Integer(13, 21), help="ONNX operator set. Default: 18.")
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
    type=Choice(["auto", "unrolled", "chunked", "fused"]),
    default="auto",
    show_default=True,
    help="Form of recurrences in TFLite: auto aims at speed, fused gives the smallest file.",
)
@click.option(
    "--batch",
    type=Integer(min=1),
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
) -> int:
    """Convert a trained Keras MODEL to TFLite and ONNX, and validate the files.

    MODEL is a .h5 or .keras file or a SavedModel folder. Every file runs in its runtime on several
    sequences, one after the other, and its outputs and attention maps are compared with those of
    Keras.
    """
    from edgeattn.api.convert import convert

    with output.progress(quiet or as_json), recorded_options():
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
        output.echo(*conversion_lines(conversion, verbose=output.is_verbose()))
    return result.exit_code
