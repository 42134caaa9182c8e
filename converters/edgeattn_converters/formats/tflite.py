"""Traced model and recipe -> a ``.tflite`` file of builtin operators that keeps no state."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.errors import ConversionError, first_line
from edgeattn.tensors import Tensors, TensorSpec
from edgeattn_converters.lowering.attention import (
    lower_attention,
    lower_keras_attention,
)
from edgeattn_converters.lowering.dense import (
    lower_layer_normalization,
    lower_single_feature_normalization,
)
from edgeattn_converters.lowering.masking import select_by_arithmetic
from edgeattn_converters.lowering.matmul import use_batch_matmul
from edgeattn_converters.lowering.multi_head import lower_multi_head_attention
from edgeattn_converters.lowering.pooling import lower_pooling
from edgeattn_converters.lowering.replacement import lowered
from edgeattn_converters.lowering.rnn.fused import OPERATOR, FusedLSTM
from edgeattn_converters.lowering.rnn.strategy import FUSED, recurrence_for
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.layer_weights import layer_weights, recurrent_layers
from edgeattn_converters.quantization.selection import ModelIO
from edgeattn_converters.quantization.tflite import quantize
from edgeattn_converters.recipes import Recipe
from edgeattn_converters.tracing.trace import Interface, Traced, trace, vocabulary_of

RUNTIMES = {"ai-edge-litert": ">=2.1"}
# The last that was published, and the one for 32-bit ARM.
TFLITE_RUNTIME = (2, 14)
SIGNATURE = "serving_default"
_OTHERS = (
    partial(lower_attention, select=select_by_arithmetic),
    partial(lower_keras_attention, select=select_by_arithmetic),
    partial(lower_multi_head_attention, select=select_by_arithmetic),
    *(lower_single_feature_normalization, lower_layer_normalization, lower_pooling),
)


def convert(
    model: Any,
    interface: Interface,
    recipe: Recipe,
    path: Path,
    *,
    attention: bool = True,
    lowering: str = "auto",
    batch: int = 1,
    options: QuantizationOptions = QuantizationOptions(),  # noqa: B008 - frozen
    samples: Tensors | None = None,
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], tuple[str, ...], dict[str, Any]]:
    """Write ``path``: the specs of its inputs and outputs, its maps' names, what it consists of.

    ``lowering`` is a name of :mod:`edgeattn_converters.lowering.rnn.strategy`; ``samples`` are real
    inputs, for recipes that need calibration.

    Raises :class:`ConversionError` where the converter gives up, or gives a file that a device
    without TensorFlow cannot run, or one that would remember the last sequence.
    """
    traced, content = _float_file(model, interface, attention, lowering, batch)
    ends = ModelIO(
        traced.inputs,
        traced.outputs,
        traced.attention,
        tuple(vocabulary_of(model, interface)),
        recurrent_layers(model),
        layer_weights(model),
    )
    made = quantize(content, ends, recipe, options, samples)
    if recipe.scheme == "float32" and options.runtime == "litert":
        # In tflite-runtime 2.14 it gains nothing.
        made = replace(made, content=use_batch_matmul(made.content))
    achieved = {**audit(made.content), **made.achieved}
    _check(achieved)
    path.write_bytes(made.content)
    return made.inputs, made.outputs, traced.attention, achieved


@functools.lru_cache(maxsize=2)  # with the maps and without
def _float_file(
    model: Any, interface: Interface, attention: bool, lowering: str, batch: int
) -> tuple[Traced, bytes]:
    """What every scheme of one model is made from: kept, since it takes seconds."""
    fused = FusedLSTM(recurrence_for("auto")) if lowering == FUSED else None
    recurrence = recurrence_for(lowering) if fused is None else fused.recurrence
    traced = trace(
        model,
        interface,
        batch=batch,
        attention=attention,
        lowering=lambda: lowered(model, recurrence, _OTHERS),
    )
    return traced, _name_tensors(_stock_convert(traced, custom=fused is not None), traced, fused)


def _stock_convert(traced: Traced, *, custom: bool = False) -> bytes:
    import tensorflow as tf

    # Without the Keras model as second argument: with it, weights of Keras 3 become NaN.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.function])
    converter.allow_custom_ops = custom
    try:
        return bytes(converter.convert())
    except Exception as error:  # the converter raises what MLIR gives it, of many classes
        raise ConversionError(f"The TFLite converter gave up: {first_line(error)}") from error


def _name_tensors(content: bytes, traced: Traced, fused: FusedLSTM | None = None) -> bytes:
    """The same graph with the model's own names on its inputs and outputs, and a signature.

    Where operators stand for fused ones, those take their place.

    The converter calls them ``input_0`` and ``Identity_1`` and promises no order; the tensors of
    the frozen function tell which is which.
    """
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    if fused is not None:
        fused.write(model)
    graph = model.subgraphs[0]
    ends = (
        ("inputs", traced.inputs, traced.function.inputs),
        ("outputs", traced.outputs, traced.function.outputs),
    )
    signature = schema.SignatureDefT()
    signature.signatureKey = SIGNATURE
    signature.subgraphIndex = 0
    taken: set[int] = set()
    # All names are read before any is written: an output may be an input as it stands.
    found = {
        end: {graph.tensors[i].name.decode(): int(i) for i in getattr(graph, end)}
        for end, _, _ in ends
    }
    for end, specs, tensors in ends:
        there = found[end]
        maps = []
        indices = []
        for position, (spec, tensor) in enumerate(zip(specs, tensors, strict=True)):
            index = there.get(tensor.name.split(":")[0])
            if index is None and end == "outputs":
                # Two outputs that are one value, or an output that is an input: one tensor twice.
                index = int(graph.outputs[position])
                index = _copy(model, index) if index in taken else None
            if index is None or index in taken:
                raise ConversionError(
                    f"The TFLite converter left no tensor of its own for {spec.name!r}."
                )
            taken.add(index)
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = spec.name, index
            maps.append(entry)
            indices.append(index)
        for spec, index in zip(specs, indices, strict=True):
            graph.tensors[index].name = spec.name
        setattr(graph, end, indices)
        setattr(signature, end, maps)
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(len(content) + 4096)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _copy(model: Any, index: int) -> int:
    """A new tensor with the value of another: that of a RESHAPE to the same shape."""
    from tensorflow.lite.python import schema_py_generated as schema

    graph = model.subgraphs[0]
    source = graph.tensors[index]
    kind = schema.BuiltinOperator.RESHAPE
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    if kind not in codes:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = kind
        code.version = 1
        model.operatorCodes.append(code)
        codes.append(kind)
    shape = schema.BufferT()
    shape.data = np.asarray(source.shape, np.int32).tobytes()
    model.buffers.append(shape)
    target, sizes = schema.TensorT(), schema.TensorT()
    target.name, target.type, target.shape = "", source.type, source.shape
    target.buffer = 0
    sizes.name, sizes.type = f"shape_{index}", schema.TensorType.INT32
    sizes.shape, sizes.buffer = [len(source.shape)], len(model.buffers) - 1
    graph.tensors.extend([sizes, target])
    operator = schema.OperatorT()
    operator.opcodeIndex = codes.index(kind)
    operator.inputs = [index, len(graph.tensors) - 2]
    operator.outputs = [len(graph.tensors) - 1]
    graph.operators.append(operator)
    return len(graph.tensors) - 1


def audit(content: bytes) -> dict[str, Any]:
    """What a file consists of: operators, tensors by dtype, what a device would stumble over."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    operator_names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    dtype_names = {v: k.lower() for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
    operators: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    activations: Counter[str] = Counter()
    variables = 0
    clips = []
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            name = operator_names[max(code.builtinCode, code.deprecatedBuiltinCode)]
            if name == "CUSTOM":
                name = f"CUSTOM {code.customCode.decode()}"
            operators[name] += 1
            if name == OPERATOR:
                clips.append(float(operator.builtinOptions.cellClip))
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            variables += bool(tensor.isVariable)
            kind = dtype_names[tensor.type]
            if data is not None and len(data):
                weights[kind] += len(data)
            else:
                activations[kind] += 1
    return {
        "operators": dict(sorted(operators.items())),
        "weight_bytes": dict(sorted(weights.items())),
        "activations": dict(sorted(activations.items())),
        "variables": variables,
        "cell_clips": clips,
        "min_runtime_version": _min_runtime(model),
    }


def _min_runtime(model: Any) -> str | None:
    for entry in model.metadata or []:
        if entry.name == b"min_runtime_version":
            data = bytes(model.buffers[entry.buffer].data)
            return data.split(b"\0")[0].decode() or None
    return None


def runtimes(achieved: dict[str, Any]) -> dict[str, str]:
    """The lowest version of each runtime that can run a file which consists of this."""
    needed = str(achieved.get("min_runtime_version") or "0")
    numbers = tuple(int(part) for part in needed.split(".")[:2] if part.isdigit())
    if numbers > TFLITE_RUNTIME:
        return RUNTIMES
    return {**RUNTIMES, "tflite-runtime": f">={needed}"}


def _check(achieved: dict[str, Any]) -> None:
    custom = [name for name in achieved["operators"] if name.startswith("CUSTOM")]
    if custom:
        raise ConversionError(
            f"No device runtime can run these operators: {', '.join(custom)}.",
            hint="See what stands in the way with: edgeattn inspect MODEL",
        )
    stateful = {"VAR_HANDLE", "ASSIGN_VARIABLE", "CALL_ONCE"} & set(achieved["operators"])
    # A fused LSTM has two, and clears them itself.
    if achieved["variables"] != 2 * len(achieved["cell_clips"]) or stateful:
        raise ConversionError("The TFLite file would remember the last sequence in variables.")
    if any(achieved["cell_clips"]):
        raise ConversionError("A fused LSTM of the TFLite file clips its cell, as Keras does not.")
