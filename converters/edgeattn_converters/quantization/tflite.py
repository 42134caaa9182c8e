"""Quantizing a float ``.tflite`` file to a scheme."""

from __future__ import annotations

from dataclasses import replace

from edgeattn.errors import ConversionError
from edgeattn.tensors import Tensors
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.candidates import (
    DEFAULT,
    Candidate,
    dynamic_stages,
    static_stages,
)
from edgeattn_converters.quantization.model import ModelIO, QuantizedModel, model_opener
from edgeattn_converters.quantization.selection import select_candidate, split_samples
from edgeattn_converters.quantization.summary import with_summary
from edgeattn_converters.quantization.tflite_int16 import use_int16
from edgeattn_converters.quantization.tflite_integer_io import use_integer_io
from edgeattn_converters.quantization.tflite_operators import (
    attention_operators,
    operators_with_weights,
    quantizable_tensors,
    recurrent_operators,
    upstream_operators,
)
from edgeattn_converters.quantization.tflite_ranges import Ranges, annotate, measure_ranges
from edgeattn_converters.quantization.tflite_summary import summarize_tflite
from edgeattn_converters.quantization.tflite_weights import FUSED, store_weights
from edgeattn_converters.quantization.weight_precision import candidate_precision
from edgeattn_converters.recipes import Recipe


def quantize(
    content: bytes,
    io: ModelIO,
    recipe: Recipe,
    options: QuantizationOptions,
    samples: Tensors | None,
) -> QuantizedModel:
    """Quantize a float32 file to the scheme of ``recipe`` and summarize the result.

    ``samples`` are real inputs, which schemes with calibrated activations need. Raises
    :class:`ConversionError` if the file cannot be converted to the scheme, or if the result does
    not achieve it.
    """
    model = _quantized(content, io, recipe, options, samples)
    return with_summary(model, summarize_tflite(model.content), recipe, options)


def _quantized(
    content: bytes,
    io: ModelIO,
    recipe: Recipe,
    options: QuantizationOptions,
    samples: Tensors | None,
) -> QuantizedModel:
    if recipe.scheme == "float32":
        return QuantizedModel(content, io.inputs, io.outputs)
    if recipe.needs_calibration:
        return _static(content, io, recipe, options, samples)
    default = {"float16": "float16", "int4": "int4"}.get(recipe.scheme, "int8")
    if default == "int4" and options.runtime != "litert":
        raise ConversionError(
            f"{options.runtime} has no kernel for int4 weights.",
            hint="Convert for LiteRT with --target litert.",
        )
    attention, upstream = upstream_operators(TFLiteFile(content), io.maps)

    def with_candidate(candidate: Candidate) -> QuantizedModel:
        file = TFLiteFile(content)
        usual = "int8_weights" if candidate.float_activations else default
        precision_of = candidate_precision(candidate, io, options, usual, upstream)
        store_weights(file, precision_of, per_channel_dense=_per_channel_dense(options))
        file.strip()
        return QuantizedModel(file.pack(), io.inputs, io.outputs, candidate)

    if recipe.scheme in ("float16", "int4"):
        return with_candidate(DEFAULT)
    stages = dynamic_stages(has_attention=bool(attention), is_recurrent=io.is_recurrent)
    opener = model_opener(content, io)
    return select_candidate(stages, with_candidate, opener, io, recipe.scheme, samples)


def _per_channel_dense(options: QuantizationOptions) -> bool:
    """Whether the runtime supports dense int8 weights with one scale per channel.

    tflite-runtime 2.14 has FULLY_CONNECTED up to version 11, and computes wrong results for them.
    """
    return options.runtime != "tflite-runtime"


def _static(
    content: bytes,
    io: ModelIO,
    recipe: Recipe,
    options: QuantizationOptions,
    samples: Tensors | None,
) -> QuantizedModel:
    if not samples:
        raise ConversionError(
            f"{recipe.scheme} needs calibration samples.", hint="Pass them: --calibration FILE"
        )
    file = TFLiteFile(content)
    if any(kind == FUSED for _, _, kind in file.operators()):
        raise ConversionError(
            f"{recipe.scheme} does not support fused LSTMs, because the range of their state "
            "cannot be measured.",
            hint="Omit --lowering, or use the scheme dynamic_int8.",
        )
    measured, held_out = split_samples(samples)
    names = [spec.name for spec in io.inputs]
    ranges, spread = measure_ranges(file, content, measured, names)
    stages = static_stages(
        recipe,
        options,
        has_attention=bool(attention_operators(file, io.maps)),
        is_recurrent=io.is_recurrent,
        has_unrolled_steps=bool(recurrent_operators(file, io.recurrent)),
    )
    model = select_candidate(
        stages,
        lambda candidate: _with_static_candidate(content, ranges, io, recipe, options, candidate),
        model_opener(content, io),
        io,
        recipe.scheme,
        held_out,
    )
    return replace(model, notes=(*model.notes, *spread))


def _with_static_candidate(
    content: bytes,
    ranges: Ranges,
    io: ModelIO,
    recipe: Recipe,
    options: QuantizationOptions,
    candidate: Candidate,
) -> QuantizedModel:
    file = TFLiteFile(content)
    upstream, upstream_weights = upstream_operators(file, io.maps)
    precision_of = candidate_precision(candidate, io, options, "int8", upstream_weights)
    float_names = operators_with_weights(file, lambda value: precision_of(value) != "int8")
    if candidate.attention:
        float_names |= attention_operators(file, io.maps, projections=candidate.projections)
    if candidate.upstream:
        float_names |= upstream
    if candidate.recurrence:
        float_names |= recurrent_operators(file, io.recurrent)
    dense = _per_channel_dense(options)
    if recipe.activations == "int16":
        use_int16(file, ranges, float_names, per_channel_dense=dense)
    else:
        file = _use_int8(file, ranges, float_names, per_channel_dense=dense)
    store_weights(file, precision_of, per_channel_dense=dense)
    inputs, outputs = io.inputs, io.outputs
    file.set_signature(inputs, outputs)
    if options.integer_io:
        known = _ranges_of_io(file, TFLiteFile(content), ranges, io)
        inputs, outputs = use_integer_io(file, inputs, outputs, known, recipe.activations)
    file.strip()
    return QuantizedModel(file.pack(), inputs, outputs, candidate)


def _use_int8(
    file: TFLiteFile, ranges: Ranges, float_names: set[str], *, per_channel_dense: bool
) -> TFLiteFile:
    """The file of TensorFlow's quantizer with these ranges; ``float_names`` stay float32."""
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize

    quantizable = quantizable_tensors(file, float_names)
    annotate(file, {index: item for index, item in ranges.items() if index in quantizable})
    names = [file.name(file.main.tensors[int(i)]) for i in file.main.outputs]
    content = mlir_quantize(
        file.pack(),
        input_data_type=tf.float32,
        output_data_type=tf.float32,
        denylisted_nodes=float_names or None,
        disable_per_channel_for_dense_layers=not per_channel_dense,
    )
    quantized = TFLiteFile(bytes(content))
    # The quantizer keeps the order of the outputs but not every name. An output that is an
    # unchanged input has lost its own tensor.
    used = {int(i) for i in quantized.main.inputs}
    indices = []
    for index, name in zip(map(int, quantized.main.outputs), names, strict=True):
        own = quantized.copy_tensor(index) if index in used else index
        used.add(own)
        quantized.main.tensors[own].name = name
        indices.append(own)
    quantized.main.outputs = indices
    return quantized


def _ranges_of_io(file: TFLiteFile, original: TFLiteFile, ranges: Ranges, io: ModelIO) -> Ranges:
    """The ranges of the inputs and outputs of ``file``, except tokens, by its tensor indices.

    They are those of the original file's inputs and outputs at the same positions.
    """
    known: Ranges = {}
    for specs, side in ((io.inputs, "inputs"), (io.outputs, "outputs")):
        indices = getattr(file.main, side), getattr(original.main, side)
        for spec, new, old in zip(specs, *indices, strict=True):
            if int(old) in ranges and not (side == "inputs" and spec.name in io.tokens):
                known[int(new)] = ranges[int(old)]
    return known
