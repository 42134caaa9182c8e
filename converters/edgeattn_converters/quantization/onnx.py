"""A float ONNX model and a recipe -> the model in that scheme, and what became of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.errors import ConversionError
from edgeattn.tensors import Array, Tensors, TensorSpec
from edgeattn_converters.quantization import attention, stored
from edgeattn_converters.quantization.judging import (
    NO_INT16,
    Ends,
    Plan,
    Tried,
    chosen,
    dynamic,
    split,
)
from edgeattn_converters.quantization.onnx_account import account
from edgeattn_converters.quantization.onnx_integers import integer_ends
from edgeattn_converters.quantization.wide import HEADROOM
from edgeattn_converters.recipes import Options, Recipe

HEAVY = frozenset({"MatMul", "Gemm", "Einsum", "ReduceSum"})
# What onnxruntime has int8 kernels for that are worth their conversions.
STATIC = (
    *("MatMul", "Gemm", "Conv", "Add", "Mul", "Relu", "Sigmoid", "MaxPool", "AveragePool"),
    *("GlobalAveragePool", "Concat", "Reshape", "Transpose", "Squeeze", "Unsqueeze"),
)
# int16 has none: the products are what matters, and onnxruntime emulates them.
WIDE = ("MatMul", "Gemm", "Conv", "Add", "Mul")


@dataclass(frozen=True)
class Quantized:
    """``told`` says why it became this and not something else, for people."""

    proto: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    told: tuple[str, ...] = ()
    achieved: Mapping[str, Any] = field(default_factory=dict)


def quantize(
    proto: Any, ends: Ends, recipe: Recipe, options: Options, samples: Tensors | None
) -> Quantized:
    """``proto`` in the scheme of ``recipe``, and the account of it; ``proto`` stays as it is.

    ``samples`` are real inputs, for the schemes that measure activations. Raises
    :class:`ConversionError` where the scheme cannot be made of this model, or was not reached.
    """
    made = _made(_copied(proto), ends, recipe, options, samples)
    found = account(made.proto)
    if recipe.scheme != "float32":
        _shorten_names(made.proto)
    if not options.allow_float_fallback:
        found.check(recipe)
    told = {} if recipe.scheme == "float32" else {"summary": found.sentence(recipe, made.told)}
    return replace(made, achieved={**found.to_json(), **told})


def _made(
    proto: Any, ends: Ends, recipe: Recipe, options: Options, samples: Tensors | None
) -> Quantized:
    if recipe.scheme == "float32":
        return Quantized(proto, ends.inputs, ends.outputs)
    if recipe.needs_calibration:
        if not samples:
            raise ConversionError(f"{recipe.scheme} needs samples: --calibration FILE")
        return _static(proto, ends, recipe, options, samples)
    if recipe.scheme == "float16":
        stored.half(proto)
        return Quantized(proto, ends.inputs, ends.outputs)
    stored.tables(proto)

    def computing() -> Quantized:
        made = _copied(proto)
        stored.int8(made)
        return Quantized(_dynamic(made, ("MatMul", "LSTM")), ends.inputs, ends.outputs)

    def only() -> Quantized:
        made = _copied(proto)
        stored.int8(made, tuple(stored.AXES))
        return Quantized(made, ends.inputs, ends.outputs)

    def run(item: Quantized | None, data: Tensors) -> Tensors:
        return _run(item.proto if item else proto, ends.inputs, ends.outputs, data)

    best, told = dynamic(computing, only, run, ends, recipe.scheme, samples)
    result: Quantized = best
    return replace(result, told=told)


def _shorten_names(proto: Any) -> None:
    """Values inside get short names, in place: the quantizers' are a fair part of the bytes."""
    graph = proto.graph
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return  # a loop's graph may name the values around it
    kept = {value.name for value in (*graph.input, *graph.output)}
    short: dict[str, str] = {}

    def renamed(name: str) -> str:
        if not name or name in kept:
            return name
        if name not in short:
            short[name] = f"_{len(short):x}"
        return short[name]

    for node in graph.node:
        node.name, node.doc_string = "", ""
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
    for item in graph.initializer:
        item.name = renamed(item.name)
    # Only hints, which onnxruntime infers itself.
    del graph.value_info[:]


def _copied(proto: Any) -> Any:
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy


def _dynamic(proto: Any, kinds: tuple[str, ...]) -> Any:
    """onnxruntime's dynamic quantizer on nodes of these kinds whose weights are worth it."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    worth = stored.large(proto)
    names = _named(proto)
    nodes = [
        names[k]
        for k, node in enumerate(proto.graph.node)
        if node.op_type in kinds and any(name in worth for name in node.input[1:3])
    ]
    if not nodes:
        return proto
    return _written(
        lambda path: quantize_dynamic(
            proto,
            path,
            op_types_to_quantize=list(kinds),
            nodes_to_quantize=nodes,
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
    )


def _static(
    proto: Any, ends: Ends, recipe: Recipe, options: Options, samples: Tensors
) -> Quantized:
    nodes = _nodes(proto)
    region = attention.region(nodes, "Softmax", HEAVY, ends.maps)
    deeper = attention.region(nodes, "Softmax", HEAVY, ends.maps, deep=True)
    asked = options.attention_precision
    if asked == "int16" and region and recipe.activations != "int16":
        raise ConversionError(NO_INT16)
    kept = {"int8": (False,), "float32": (True,)}.get(asked, (False, True))
    measuring, judged = split(samples)
    plans = [Plan(attention=item, recurrence=False) for item in (kept if region else (False,))]
    if deeper and True in kept and recipe.activations == "int8":
        plans.append(Plan(attention=True, recurrence=False, deep=True))

    def make(plan: Plan) -> Quantized:
        return _quantized(
            _copied(proto), ends, recipe, measuring, deeper if plan.deep else region, plan
        )

    def run(made: Quantized | None, data: Tensors) -> Tensors:
        if made is None:
            return _run(proto, ends.inputs, ends.outputs, data)
        return _run(made.proto, made.inputs, made.outputs, data)

    tried = []
    for plan in plans:
        try:
            made = make(plan)
            tried.append(Tried(plan, made.proto.ByteSize(), made))
        except Exception as error:  # onnxruntime's quantizer raises what its handlers do
            if plan is plans[-1] and not tried:
                raise ConversionError(f"onnxruntime's quantizer gave up: {error}") from error
    best, told = chosen(tried, run, ends, recipe.scheme, judged)
    result: Quantized = replace(best, told=told)
    if options.integer_io:
        seen = {**samples, **run(None, samples)}
        for name in ends.tokens:
            del seen[name]
        inputs, outputs = integer_ends(
            result.proto, ends.inputs, ends.outputs, seen, recipe.activations
        )
        result = replace(result, inputs=inputs, outputs=outputs)
    return result


def _quantized(
    proto: Any,
    ends: Ends,
    recipe: Recipe,
    samples: Tensors,
    region: set[int],
    plan: Plan,
) -> Quantized:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    names = _named(proto)
    wide = recipe.activations == "int16"
    excluded = [names[k] for k in region] if plan.attention else []
    made = _written(
        lambda path: quantize_static(
            proto,
            path,
            _Reader(ends.inputs, samples),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(WIDE if wide else STATIC),
            nodes_to_exclude=excluded,
            per_channel=True,
            activation_type=QuantType.QInt16 if wide else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": wide,
                "UseQDQContribOps": wide,
                "CalibMaxIntermediateOutputs": 64,
            },
        )
    )
    if wide:
        _give_headroom(made)
    stored.tables(made)
    stored.int8(made, ("GRU", "RNN"))
    return Quantized(_dynamic(made, ("LSTM", "MatMul")), ends.inputs, ends.outputs)


def _give_headroom(proto: Any) -> None:
    """Double the ranges of int16 activations, in place; see ``quantization/wide.py``."""
    from onnx import TensorProto, numpy_helper

    constants = {item.name: item for item in proto.graph.initializer}
    scales = set()
    for node in proto.graph.node:
        if node.op_type != "QuantizeLinear" or len(node.input) < 3:
            continue
        zero_point = constants.get(node.input[2])
        if zero_point is not None and zero_point.data_type == TensorProto.INT16:
            scales.add(node.input[1])
    for name in scales & set(constants):
        value = numpy_helper.to_array(constants[name])
        constants[name].CopyFrom(
            numpy_helper.from_array(np.asarray(value * HEADROOM, np.float32), name)
        )


class _Reader:
    """What onnxruntime's calibration asks for samples."""

    def __init__(self, specs: tuple[TensorSpec, ...], samples: Tensors, rows: int = 16) -> None:
        self._specs, self._samples, self._rows = specs, samples, rows
        self._batches = self._each()

    def _each(self) -> Iterator[dict[str, Array]]:
        count = len(self._samples[self._specs[0].name])
        for start in range(0, count, self._rows):
            yield {
                spec.name: np.ascontiguousarray(
                    self._samples[spec.name][start : start + self._rows]
                )
                for spec in self._specs
            }

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return self._batches

    def set_range(self, start_index: int, end_index: int) -> None:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._samples[self._specs[0].name])


def _named(proto: Any) -> list[str]:
    """The nodes' names, each its own: the quantizers know nodes by name."""
    for k, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{k}"
    return [node.name for node in proto.graph.node]


def _nodes(proto: Any) -> list[attention.Node]:
    constants = {item.name for item in proto.graph.initializer}
    return [
        attention.Node(
            node.op_type,
            tuple(name for name in node.input if name and name not in constants),
            tuple(node.output),
        )
        for node in proto.graph.node
    ]


def _written(write: Any) -> Any:
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write(path)
        return onnx.load(path)


def _run(
    proto: Any, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], data: Tensors
) -> Tensors:
    from edgeattn.runners.onnx import ONNXRunner

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(proto.SerializeToString())
        return ONNXRunner(path, inputs, outputs).run(data)
