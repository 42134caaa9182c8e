"""TFLite files: built-in operators only, and no state between calls."""

import contextlib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edgeattn.errors import (
    ConversionError,
    SchemeError,
    UnsupportedModelError,
    first_line,
)
from edgeattn.file_structure.contents import FileContents
from edgeattn.file_structure.tflite import read_tflite
from edgeattn.runners.micro_operators import resolver_method
from edgeattn.schemes import MICRO
from edgeattn.tensors import Tensors
from edgeattn_converters.formats import ConvertedFile
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.lowering import missing_operations
from edgeattn_converters.lowering.attention import lower_attention, lower_keras_attention
from edgeattn_converters.lowering.call_replacement import lowered
from edgeattn_converters.lowering.complex_numbers import complex_as_pairs
from edgeattn_converters.lowering.constant_operands import ordered_constants
from edgeattn_converters.lowering.fourier import lower_spectrogram
from edgeattn_converters.lowering.masking import select_by_arithmetic
from edgeattn_converters.lowering.multi_head import lower_multi_head_attention
from edgeattn_converters.lowering.plain_layers import (
    lower_layer_normalization,
    lower_pooling,
    lower_signature,
    lower_single_feature_normalization,
)
from edgeattn_converters.lowering.rnn.fused import FusedLSTM
from edgeattn_converters.lowering.rnn.recurrence import RecurrenceLowering
from edgeattn_converters.lowering.rnn.strategy import (
    FLOAT32_BYTES,
    FUSED,
    FUSED_INTEGERS,
    INT8_BYTES,
    recurrence_lowering,
)
from edgeattn_converters.options import ConversionOptions, QuantizationOptions
from edgeattn_converters.quantization.candidates import TARGET
from edgeattn_converters.quantization.integer_only import require_integers
from edgeattn_converters.quantization.layer_weights import layer_weights, recurrent_layers
from edgeattn_converters.quantization.quantized_model import ModelIO, QuantizedModel
from edgeattn_converters.quantization.tflite import TFLiteQuantizer, quantize
from edgeattn_converters.quantization.tflite_micro import MicroQuantizer
from edgeattn_converters.recipes import Recipe
from edgeattn_converters.tracing.trace import Interface, Traced, trace

RUNTIMES = {"ai-edge-litert": ">=2.1"}
# The last published version, which is the one for 32-bit ARM.
TFLITE_RUNTIME = (2, 14)
# The version of Lite Micro whose operators files use.
MICRO_VERSION = ">=0.dev20261023"
# In errors of the converter: an operation of TensorFlow, and the place of a call in a source file.
_MISSING = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")
_PLACES = re.compile(r"(<unknown>|/\S+?\.py):\d+(:\d+)?: (error: )?")
_LOWERINGS = (
    partial(lower_attention, select=select_by_arithmetic),
    partial(lower_keras_attention, select=select_by_arithmetic),
    partial(lower_multi_head_attention, select=select_by_arithmetic),
    *(lower_single_feature_normalization, lower_layer_normalization, lower_pooling),
    lower_spectrogram,
    lower_signature,
)


def convert(
    model: Any,
    interface: Interface,
    recipe: Recipe,
    path: Path,
    *,
    options: ConversionOptions = ConversionOptions(),  # noqa: B008 - frozen
    quantization: QuantizationOptions = QuantizationOptions(),  # noqa: B008 - frozen
    samples: Tensors | None = None,
) -> ConvertedFile:
    """Write ``model`` to ``path``; ``samples`` are real inputs, for schemes that need calibration.

    Raises :class:`ConversionError` if the converter fails, or writes a file that a device without
    TensorFlow cannot run or that keeps state between calls.
    """
    arguments = (model, interface, recipe, options, quantization, samples)
    if quantization.runtime == MICRO:
        traced, quantized = _for_microcontroller(*arguments)
    else:
        unrolls = quantization.integer_only and options.lowering == "auto"
        traced, quantized = _quantized(*arguments, "unrolled" if unrolls else options.lowering)
    if quantization.integer_only:
        require_integers(recipe.scheme, quantized.blockers)
    content = quantized.content
    if recipe.scheme == "float32" and quantization.runtime == "litert":
        # tflite-runtime 2.14 does not run faster with it.
        content = use_batch_matmul(content)
    contents = read_tflite(content)
    _check(contents)
    achieved = {**quantized.achieved, **contents.to_json()}
    if quantization.integer_only:
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
    samples: Tensors | None,
    lowering: str,
) -> tuple[Traced, QuantizedModel]:
    arguments = (model, interface, options.attention, lowering, options.batch)
    traced, content = _float_file(*arguments)
    if recipe.weights == "int8" and lowering in ("auto", "chunked") and _has_loops(content):
        # More steps of smaller weights fit into a cache.
        traced, content = _float_file(*arguments, INT8_BYTES)
    model_io = ModelIO(
        traced.inputs,
        traced.outputs,
        traced.attention,
        tuple(interface.vocabulary),
        recurrent_layers(model),
        layer_weights(model),
    )
    integers = quantization.integer_only or quantization.runtime == MICRO
    quantizer = MicroQuantizer if integers else TFLiteQuantizer
    return traced, quantize(content, model_io, recipe, quantization, samples, quantizer)


def _for_microcontroller(
    model: Any,
    interface: Interface,
    recipe: Recipe,
    options: ConversionOptions,
    quantization: QuantizationOptions,
    samples: Tensors | None,
) -> tuple[Traced, QuantizedModel]:
    """The file with fused LSTMs if it is near the limits, otherwise with written-out steps.

    Fused LSTMs take a fraction of the arena, but their weights have one scale for each gate.
    """
    arguments = (model, interface, recipe, options, quantization, samples)
    if options.lowering == "unrolled" or recipe.activations != "int16":
        if options.lowering == FUSED:
            raise SchemeError(
                f"{recipe.scheme} does not support fused LSTMs, whose activations are int16.",
                hint="Omit --lowering, or use the scheme int16x8.",
            )
        return _quantized(*arguments, "unrolled")
    try:
        fused = _quantized(*arguments, FUSED_INTEGERS)
        if options.lowering == FUSED or fused[1].ratio <= TARGET:
            return fused
    except UnsupportedModelError:
        if options.lowering == FUSED:
            raise
    return _quantized(*arguments, "unrolled")


# With attention maps and without, for two sizes of weights, or with fused LSTMs.
@functools.lru_cache(maxsize=4)
def _float_file(
    model: Any,
    interface: Interface,
    attention: bool,
    lowering: str,
    batch: int,
    weight_bytes: int = FLOAT32_BYTES,
) -> tuple[Traced, bytes]:
    """The float32 file that a scheme starts from; cached, because it takes seconds.

    ``weight_bytes`` is the size of a recurrent weight in the scheme, which the lowering depends on.
    """
    arguments = (model, interface, attention, (lowering, weight_bytes), batch)
    try:
        traced, file = _traced_file(*arguments, missing_operations.TFLITE)
    except MissingOperatorsError as error:
        # The converter fuses the error function in GELU, so it is replaced only if it remains.
        if not missing_operations.ERROR_FUNCTIONS & set(error.names):
            raise
        traced, file = _traced_file(*arguments, missing_operations.TFLITE_WITH_ERF)
    _name_tensors(file, traced)
    return traced, file.to_bytes()


def _traced_file(
    model: Any,
    interface: Interface,
    attention: bool,
    lowering: tuple[str, int],
    batch: int,
    replacements: missing_operations.Replacements,
) -> tuple[Traced, TFLiteFile]:
    fused = None
    if lowering[0] in (FUSED, FUSED_INTEGERS):
        clearing = lowering[0] == FUSED
        fallback = recurrence_lowering("auto" if clearing else "unrolled")
        fused = FusedLSTM(fallback, clearing=clearing)
    recurrence = recurrence_lowering(*lowering) if fused is None else fused.lower
    if fused is not None:
        # Custom operators are allowed, so the converter does not report others.
        replacements = missing_operations.TFLITE_WITH_ERF
    traced = trace(
        model,
        interface,
        batch=batch,
        attention=attention,
        lowering=lambda: _lowered(model, recurrence, replacements),
    )
    file = TFLiteFile(_convert_traced(traced, custom=fused is not None))
    if fused is not None:
        fused.write(file)
    return traced, file


def _has_loops(content: bytes) -> bool:
    return "WHILE" in read_tflite(content).operators


@contextlib.contextmanager
def _lowered(
    model: Any, recurrence: RecurrenceLowering, replacements: missing_operations.Replacements
) -> Iterator[None]:
    with (
        lowered(model, recurrence, _LOWERINGS),
        ordered_constants(),
        missing_operations.replaced_operations(replacements),
        complex_as_pairs(),
    ):
        yield


class MissingOperatorsError(ConversionError):
    """The model needs operations of TensorFlow, ``names``, that TFLite does not have."""

    def __init__(self, reason: str, names: Sequence[str]) -> None:
        super().__init__(
            f"The TFLite converter failed: {reason}",
            hint="Express them with other operations, or convert to ONNX only: --format onnx",
        )
        self.names = names


def _convert_traced(traced: Traced, *, custom: bool = False) -> bytes:
    import tensorflow as tf

    # Without the Keras model as second argument, with which weights of Keras 3 become NaN.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.function])
    converter.allow_custom_ops = custom
    try:
        return bytes(converter.convert())
    except Exception as error:  # MLIR errors arrive as many classes
        if missing := _missing(error):
            raise MissingOperatorsError(_reason(error), missing) from error
        raise ConversionError(f"The TFLite converter failed: {_reason(error)}") from error


def _missing(error: Exception) -> list[str]:
    """The operations of TensorFlow that TFLite lacks, according to an error of the converter."""
    return sorted(set(_MISSING.findall(str(error))))


def _reason(error: Exception) -> str:
    """The operators that TFLite lacks, or the first line without the places in source files."""
    missing = _missing(error)
    if missing:
        return f"TFLite has no operator for {', '.join(missing)}."
    return " ".join(_PLACES.sub(" ", first_line(error)).split())


def _name_tensors(file: TFLiteFile, traced: Traced) -> None:
    """Give the inputs and outputs the model's own names, in place, and add a signature.

    The converter names them ``input_0`` and ``Identity_1`` in no documented order; the names of the
    frozen function's tensors identify them.
    """
    graph = file.main
    sides = (
        ("inputs", traced.inputs, traced.function.inputs),
        ("outputs", traced.outputs, traced.function.outputs),
    )
    # All names are read before any is written, because an output may be an unchanged input.
    by_name = {
        side: {file.name(graph.tensors[i]): int(i) for i in getattr(graph, side)}
        for side, _, _ in sides
    }
    used: set[int] = set()
    for side, specs, tensors in sides:
        indices = []
        for position, (spec, tensor) in enumerate(zip(specs, tensors, strict=True)):
            index = by_name[side].get(tensor.name.split(":")[0])
            if index is None and side == "outputs":
                # Two outputs of one value, or an output that is an input, share a tensor.
                index = int(graph.outputs[position])
                index = file.copy_tensor(index) if index in used else None
            if index is None or index in used:
                raise ConversionError(
                    f"The TFLite converter left no tensor of its own for {spec.name!r}."
                )
            used.add(index)
            indices.append(index)
        for spec, index in zip(specs, indices, strict=True):
            graph.tensors[index].name = spec.name
        setattr(graph, side, indices)
    file.set_signature(traced.inputs, traced.outputs)


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


def use_batch_matmul(content: bytes) -> bytes:
    """The float32 file with each FULLY_CONNECTED of one row as a BATCH_MATMUL, for XNNPACK.

    XNNPACK computes it faster, with the same results bit for bit: an LSTM of 100 units over 500
    steps takes a fifth less time, and no measured model takes more. An operator with a bias or an
    activation function stays, because BATCH_MATMUL has neither.
    """
    file = TFLiteFile(content)
    rows = [
        operator
        for graph, operator, kind in file.operators()
        if kind == "FULLY_CONNECTED" and _multiplies_row(file, graph, operator)
    ]
    if not rows:
        return content
    code = file.code_index("BATCH_MATMUL")
    for operator in rows:
        options = file.schema.BatchMatMulOptionsT()
        options.adjY = True  # the weights stay (units, features)
        operator.opcodeIndex = code
        operator.inputs = operator.inputs[:2]
        operator.builtinOptionsType = file.schema.BuiltinOptions.BatchMatMulOptions
        operator.builtinOptions = options
    return file.to_bytes()


def _multiplies_row(file: TFLiteFile, graph: Any, operator: Any) -> bool:
    """Whether the operator is (1, features) times constant weights, all float32, and no more."""
    x, weights, *bias = (int(index) for index in operator.inputs)
    row = graph.tensors[x]
    return (
        all(index < 0 for index in bias)
        and file.dtype(row) == file.dtype(graph.tensors[weights]) == "FLOAT32"
        and len(row.shape) == 2
        and int(row.shape[0]) == 1
        and file.constant(graph.tensors[weights]) is not None
        and not operator.builtinOptions.fusedActivationFunction
    )
