"""TFLite files: built-in operators only, and no state between calls."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from edgeattn.errors import (
    ConversionError,
    SchemeError,
    UnsupportedModelError,
)
from edgeattn.file_structure.contents import FileContents
from edgeattn.file_structure.tflite import read_tflite
from edgeattn.runners.micro_operators import resolver_method
from edgeattn.schemes import MICRO
from edgeattn.tensors import Tensors
from edgeattn_converters.formats import ConvertedFile
from edgeattn_converters.formats.batch_matmul import use_batch_matmul
from edgeattn_converters.formats.tflite_float import divides_by_roots, float_file, has_loops
from edgeattn_converters.lowering.rnn.strategy import (
    FLOAT32_BYTES,
    FUSED,
    FUSED_INTEGERS,
    INT8_BYTES,
)
from edgeattn_converters.options import ConversionOptions, QuantizationOptions
from edgeattn_converters.quantization.candidates import TARGET
from edgeattn_converters.quantization.integer_only import require_integers, require_no_floats
from edgeattn_converters.quantization.layer_weights import layer_weights, recurrent_layers
from edgeattn_converters.quantization.quantized_model import (
    ModelIO,
    QuantizationSamples,
    QuantizedModel,
)
from edgeattn_converters.quantization.tflite import LiteRTQuantizer, quantize
from edgeattn_converters.quantization.tflite_micro import MicroQuantizer
from edgeattn_converters.recipes import Recipe
from edgeattn_converters.tracing.trace import Interface, Traced

RUNTIMES = {"ai-edge-litert": ">=2.1"}
# The last published version, which is the one for 32-bit ARM.
TFLITE_RUNTIME = (2, 14)
# The version of Lite Micro whose operators files use.
MICRO_VERSION = ">=0.dev20261023"


def convert(
    model: Any,
    interface: Interface,
    recipe: Recipe,
    path: Path,
    *,
    options: ConversionOptions = ConversionOptions(),  # noqa: B008 - frozen
    quantization: QuantizationOptions = QuantizationOptions(),  # noqa: B008 - frozen
    samples: Tensors | QuantizationSamples | None = None,
) -> ConvertedFile:
    """Write ``model`` to ``path``; ``samples`` are real inputs, for schemes that need calibration.

    Raises :class:`ConversionError` if the converter fails, or writes a file that a device without
    TensorFlow cannot run or that keeps state between calls.
    """
    quantized_by = partial(_quantized, model, interface, recipe, options, quantization, samples)
    if quantization.runtime == MICRO:
        traced, quantized = _for_microcontroller(recipe, options.lowering, quantized_by)
    else:
        unrolls = quantization.integer_only and options.lowering == "auto"
        traced, quantized = quantized_by("unrolled" if unrolls else options.lowering)
    if quantization.integer_only:
        require_integers(recipe.scheme, quantized.blockers)
    content = quantized.content
    if quantization.runtime == "litert" and not quantization.integer_only:
        # tflite-runtime 2.14 does not run faster with it.
        content = use_batch_matmul(content)
    contents = read_tflite(content)
    _check(contents)
    achieved = {**quantized.achieved, **contents.to_json()}
    if quantization.integer_only:
        require_no_floats(contents)
        achieved["integer_only"] = True
    if quantization.runtime == MICRO:
        _check_micro_operators(contents)
        achieved["flash_bytes"] = len(content)
    path.write_bytes(content)
    return ConvertedFile(quantized.inputs, quantized.outputs, traced.attention, achieved)


def _quantized(
    model: Any,
    interface: Interface,
    recipe: Recipe,
    options: ConversionOptions,
    quantization: QuantizationOptions,
    samples: Tensors | QuantizationSamples | None,
    lowering: str,
) -> tuple[Traced, QuantizedModel]:
    arguments = (model, interface, options.attention, lowering, options.batch)
    traced, content = float_file(*arguments)
    # More steps of smaller weights fit into a cache.
    loops = recipe.weights == "int8" and lowering in ("auto", "chunked") and has_loops(content)
    norms = recipe.activations == "int8" and divides_by_roots(content)
    if loops or norms:
        traced, content = float_file(*arguments, INT8_BYTES if loops else FLOAT32_BYTES, norms)
    model_io = ModelIO(
        traced.inputs,
        traced.outputs,
        traced.attention,
        tuple(interface.vocabulary),
        recurrent_layers(model),
        layer_weights(model),
    )
    integers = quantization.integer_only or quantization.runtime == MICRO
    quantizer = MicroQuantizer if integers else LiteRTQuantizer
    return traced, quantize(content, model_io, recipe, quantization, samples, quantizer)


def _for_microcontroller(
    recipe: Recipe, lowering: str, quantized_by: Callable[[str], tuple[Traced, QuantizedModel]]
) -> tuple[Traced, QuantizedModel]:
    """The file with fused LSTMs if it is near the limits, otherwise with written-out steps.

    Fused LSTMs take a fraction of the arena, but their weights have one scale for each gate.
    """
    if lowering == "unrolled" or recipe.activations != "int16":
        if lowering == FUSED:
            raise SchemeError(
                f"{recipe.scheme} does not support fused LSTMs, whose activations are int16.",
                hint="Omit --lowering, or use the scheme int16x8.",
            )
        return quantized_by("unrolled")
    try:
        fused = quantized_by(FUSED_INTEGERS)
        if lowering == FUSED or fused[1].ratio <= TARGET:
            return fused
    except UnsupportedModelError:
        if lowering == FUSED:
            raise
    return quantized_by("unrolled")


def runtimes(achieved: Mapping[str, Any]) -> dict[str, str]:
    """The lowest version of each runtime that can run a file with these contents."""
    if "flash_bytes" in achieved:
        return {MICRO: MICRO_VERSION}
    version = str(achieved.get("min_runtime_version") or "0")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers > TFLITE_RUNTIME:
        return RUNTIMES
    return {**RUNTIMES, "tflite-runtime": f">={version}"}


def _check_micro_operators(contents: FileContents) -> None:
    missing = [kind for kind in contents.operators if resolver_method(kind) is None]
    if missing:
        raise ConversionError(
            f"{MICRO} has no operator {', '.join(missing)}.",
            hint="Replace the layers that need them: edgeattn inspect MODEL lists the layers.",
        )


def _check(contents: FileContents) -> None:
    if contents.custom:
        raise ConversionError(
            f"The file needs operators that no device runtime has: {', '.join(contents.custom)}.",
            hint="Find the layers they come from: edgeattn inspect MODEL",
        )
    if contents.states:
        raise ConversionError("The TFLite file keeps state in variables between sequences.")
    if any(contents.cell_clips):
        raise ConversionError("A fused LSTM of the TFLite file clips its cell, unlike Keras.")
