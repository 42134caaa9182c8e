"""A float ``.tflite`` file and a recipe -> the file in that scheme, and what became of it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeattn.errors import ConversionError
from edgeattn.tensors import Tensors, TensorSpec
from edgeattn_converters.lowering import all_layers
from edgeattn_converters.lowering.cells import KINDS, is_keras_class
from edgeattn_converters.quantization import attention, ranges, weights
from edgeattn_converters.quantization.flatbuffers import Flatbuffer
from edgeattn_converters.quantization.judging import Ends, Plan, Tried, chosen
from edgeattn_converters.quantization.tflite_account import account
from edgeattn_converters.recipes import Options, Recipe

HEAVY = frozenset({"BATCH_MATMUL", "FULLY_CONNECTED", "SUM", "CONV_2D", "REDUCE_SUM"})


@dataclass(frozen=True)
class Quantized:
    """``told`` says why it became this and not something else, for people."""

    content: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    told: tuple[str, ...] = ()
    achieved: Mapping[str, Any] = field(default_factory=dict)


def quantize(
    content: bytes, ends: Ends, recipe: Recipe, options: Options, samples: Tensors | None
) -> Quantized:
    """``content`` in the scheme of ``recipe``, and the account of it.

    ``samples`` are real inputs, for the schemes that measure activations. Raises
    :class:`ConversionError` where the scheme cannot be made of this file, or was not reached.
    """
    made = _made(content, ends, recipe, options, samples)
    found = account(made.content)
    if not options.allow_float_fallback:
        found.check(recipe)
    told = {} if recipe.scheme == "float32" else {"summary": found.sentence(recipe, made.told)}
    return replace(made, achieved={**found.to_json(), **told})


def _made(
    content: bytes, ends: Ends, recipe: Recipe, options: Options, samples: Tensors | None
) -> Quantized:
    if recipe.scheme == "float32":
        return Quantized(content, ends.inputs, ends.outputs)
    if recipe.needs_calibration:
        if not samples:
            raise ConversionError(f"{recipe.scheme} needs samples: --calibration FILE")
        if recipe.scheme == "int16x8":
            raise ConversionError("int16x8 is not made for TFLite by this version.")
        return _static(content, ends, recipe, options, samples)
    file = Flatbuffer(content)
    if recipe.scheme == "float16":
        weights.half(file)
    else:
        weights.hybrid(file, per_channel_dense=_per_channel_dense(options))
    file.shorten_names()
    return Quantized(file.pack(), ends.inputs, ends.outputs)


def recurrent_layers(model: Any) -> tuple[str, ...]:
    """The names of Keras' recurrent layers in ``model``."""
    return tuple(str(x.name) for x in all_layers(model) if is_keras_class(x, *KINDS))


def _per_channel_dense(options: Options) -> bool:
    # tflite-runtime 2.14 knows FULLY_CONNECTED up to version 11, and computes wrong numbers for
    # int8 weights with a scale per channel.
    return options.runtime != "tflite-runtime"


def _static(
    content: bytes, ends: Ends, recipe: Recipe, options: Options, samples: Tensors
) -> Quantized:
    file = Flatbuffer(content)
    measured = ranges.measure(file, content, samples, [spec.name for spec in ends.inputs])
    tried, reasons = [], []
    for plan in _plans(file, ends, options):
        try:
            made = _quantized(content, measured, ends, options, plan)
            tried.append(Tried(plan, len(made.content), made))
        except Exception as error:  # the quantizer raises what MLIR gives it, of many classes
            reasons.append(str(error) or type(error).__name__)
    if not tried:
        raise ConversionError(f"TensorFlow's quantizer gave up: {reasons[0]}")

    def run(made: Quantized | None, data: Tensors) -> Tensors:
        if made is None:
            return _run(content, ends.inputs, ends.outputs, data)
        return _run(made.content, made.inputs, made.outputs, data)

    best, told = chosen(tried, run, ends, recipe.scheme, samples)
    result: Quantized = best
    return replace(result, told=told)


def _plans(file: Flatbuffer, ends: Ends, options: Options) -> list[Plan]:
    attended = bool(_attention(file, ends.maps))
    asked = options.attention_precision
    if asked == "int16" and attended:
        raise ConversionError(
            "TFLite's quantizer has one integer type for all activations of a file: attention in "
            "int16 is int16x8's, or ONNX'."
        )
    kept = {"auto": (False, True), "int8": (False,), "float32": (True,)}.get(asked, (False, True))
    steps = _recurrent(file, ends.recurrent)
    return [
        Plan(attention, recurrence)
        for attention in (kept if attended else (False,))
        for recurrence in ((False, True) if steps else (False,))
    ]


def _quantized(
    content: bytes,
    measured: ranges.Ranges,
    ends: Ends,
    options: Options,
    plan: Plan,
) -> Quantized:
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize

    file = Flatbuffer(content)
    kept: set[str] = set()
    if plan.attention:
        kept |= _attention(file, ends.maps)
    if plan.recurrence:
        kept |= _recurrent(file, ends.recurrent)
    ranges.annotate(file, measured)
    ends_dtype = tf.int8 if options.integer_io else tf.float32
    result = mlir_quantize(
        file.pack(),
        input_data_type=ends_dtype,
        output_data_type=ends_dtype,
        denylisted_nodes=kept or None,
        disable_per_channel_for_dense_layers=not _per_channel_dense(options),
    )
    made = Flatbuffer(bytes(result))
    weights.hybrid(made, per_channel_dense=_per_channel_dense(options))
    inputs = tuple(_spec(made, spec, made.main.inputs) for spec in ends.inputs)
    outputs = tuple(_spec(made, spec, made.main.outputs) for spec in ends.outputs)
    made.shorten_names()
    return Quantized(made.pack(), inputs, outputs)


def _spec(file: Flatbuffer, spec: TensorSpec, indices: Iterable[int]) -> TensorSpec:
    """``spec`` as the file has it: with a scale where it is an integer."""
    for index in indices:
        tensor = file.main.tensors[int(index)]
        if file.name(tensor) != spec.name:
            continue
        dtype = file.dtype(tensor).lower()
        if dtype == spec.dtype:
            return spec
        quantization = tensor.quantization
        return replace(
            spec,
            dtype=dtype,
            scale=float(quantization.scale[0]),
            zero_point=int(quantization.zeroPoint[0]),
        )
    raise ConversionError(f"The quantizer left no tensor called {spec.name!r}.")


def _nodes(file: Flatbuffer) -> list[attention.Node]:
    tensors = file.main.tensors
    return [
        attention.Node(
            file.kind(operator),
            tuple(
                str(int(i))
                for i in operator.inputs
                if int(i) >= 0 and file.constant(tensors[int(i)]) is None
            ),
            tuple(str(int(i)) for i in operator.outputs),
        )
        for operator in file.main.operators
    ]


def _attention(file: Flatbuffer, maps: tuple[str, ...]) -> set[str]:
    """The names by which the quantizer knows the operators of attention."""
    names = {file.name(tensor): str(k) for k, tensor in enumerate(file.main.tensors)}
    found = attention.region(
        _nodes(file), "SOFTMAX", HEAVY, [names[name] for name in maps if name in names]
    )
    operators = file.main.operators
    return {file.name(file.main.tensors[int(i)]) for k in found for i in operators[k].outputs}


def _recurrent(file: Flatbuffer, layers: tuple[str, ...]) -> set[str]:
    """The same of steps of recurrent layers that are written out: names tell their layer."""
    if not layers:
        return set()
    inside = re.compile(rf"(^|[/;])({'|'.join(map(re.escape, layers))})(_\d+)?/")
    return {
        file.name(file.main.tensors[int(i)])
        for operator in file.main.operators
        for i in operator.outputs
        if inside.search(file.name(file.main.tensors[int(i)]))
    }


def _run(
    content: bytes, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], data: Tensors
) -> Tensors:
    from edgeattn.runners.tflite import TFLiteRunner

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        runner = TFLiteRunner(path, inputs, outputs)
        try:
            return runner.run(data)
        finally:
            runner.close()
