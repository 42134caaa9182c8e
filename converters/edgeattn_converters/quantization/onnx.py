"""A float ONNX model and a recipe -> the model in that scheme, and what became of it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.errors import ConversionError
from edgeattn.tensors import Array, Tensors, TensorSpec
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization import attention_region as attention
from edgeattn_converters.quantization import onnx_weights as stored
from edgeattn_converters.quantization.candidates import (
    PLAIN,
    Candidate,
    dynamic_stages,
    static_stages,
)
from edgeattn_converters.quantization.layer_weights import PrecisionOf, key_of
from edgeattn_converters.quantization.onnx_integer_io import use_integer_io
from edgeattn_converters.quantization.onnx_ranges import spread
from edgeattn_converters.quantization.onnx_summary import summarize
from edgeattn_converters.quantization.selection import (
    ModelIO,
    OpenModel,
    QuantizedModel,
    RunFunction,
    candidate_precision,
    select_candidate,
    split_samples,
    with_summary,
)
from edgeattn_converters.quantization.tflite_int16 import HEADROOM
from edgeattn_converters.quantization.tflite_weights import WeightFilter
from edgeattn_converters.recipes import Recipe

HEAVY = frozenset({"MatMul", "Gemm", "Einsum", "ReduceSum"})
# What its dynamic quantizer has integer kernels for.
DYNAMIC = ("MatMul", "LSTM")
# Multiplications of a sequence below which a product stays float32.
WORTH = 1 << 16
# What onnxruntime has int8 kernels for that are worth their conversions.
STATIC = (
    *("MatMul", "Gemm", "Conv", "Add", "Mul", "Relu", "Sigmoid", "MaxPool", "AveragePool"),
    *("GlobalAveragePool", "Concat", "Reshape", "Transpose", "Squeeze", "Unsqueeze"),
)
# The operator set since which there are int4, and int16 behind QuantizeLinear; and its IR version.
SMALL_OPSET, SMALL_IR = 21, 10
# int16 has none: the products are what matters, and onnxruntime emulates them.
WIDE = ("MatMul", "Gemm", "Conv", "Add", "Mul")


def quantize(
    proto: Any, ends: ModelIO, recipe: Recipe, options: QuantizationOptions, samples: Tensors | None
) -> QuantizedModel:
    """``proto`` in the scheme of ``recipe``, and the account of it; ``proto`` stays as it is.

    ``samples`` are real inputs, for the schemes that measure activations. Raises
    :class:`ConversionError` where the scheme cannot be made of this model, or was not reached.
    """
    made = _made(_copied(proto), ends, recipe, options, samples)
    found = summarize(made.content)
    if recipe.scheme != "float32":
        _shorten_names(made.content)
    return with_summary(made, found, recipe, options)


def _made(
    proto: Any, ends: ModelIO, recipe: Recipe, options: QuantizationOptions, samples: Tensors | None
) -> QuantizedModel:
    if recipe.scheme == "float32":
        return QuantizedModel(proto, ends.inputs, ends.outputs)
    needs = recipe.activations == "int16" or recipe.weights == "int4"
    if needs and (options.opset or SMALL_OPSET) < SMALL_OPSET:
        raise ConversionError(
            f"{recipe.scheme} needs ONNX operator set {SMALL_OPSET}, and --opset {options.opset} "
            "is asked for.",
            hint=f"Leave --opset out for it, or take {SMALL_OPSET}.",
        )
    if recipe.needs_calibration:
        if not samples:
            raise ConversionError(f"{recipe.scheme} needs samples: --calibration FILE")
        return _static(proto, ends, recipe, options, samples)
    usual = {"float16": "float16", "int4": "int4"}.get(recipe.scheme, "int8")
    if "int4" in (usual, *dict(options.precision).values()):
        proto = _raised(proto)
    attended, upstream = _upstream(proto, ends.maps)

    def make(plan: Candidate) -> QuantizedModel:
        how = "int8_weights" if plan.careful else usual
        precision_of = candidate_precision(plan, ends, options, how, upstream)
        return QuantizedModel(_store(_copied(proto), precision_of), ends.inputs, ends.outputs, plan)

    if recipe.scheme in ("float16", "int4"):
        return make(PLAIN)
    steps = dynamic_stages(attended=bool(attended), recurrent=ends.recurs)
    return select_candidate(steps, make, _opener(proto, ends), ends, recipe.scheme, samples)


def _raised(proto: Any) -> Any:
    """The same in the operator set that has int4."""
    from onnx import version_converter

    made = version_converter.convert_version(proto, SMALL_OPSET)
    made.ir_version = max(made.ir_version, SMALL_IR)
    return made


def _store(proto: Any, precision_of: PrecisionOf) -> Any:
    """Each large weight in its precision, in place, and what onnxruntime then makes of it."""
    light = _light(proto)

    def of(*hows: str) -> WeightFilter:
        def wanted(value: Array) -> bool:
            how = precision_of(value)
            if how == "int8" and key_of(value) in light:
                how = "int8_weights"
            return how in hows

        return wanted

    stored.tables(proto, of("int8", "int8_weights", "int4"))
    stored.integers(proto, stored.AXES, of("int8_weights"))
    stored.integers(proto, stored.AXES, of("int4"), bits=4)
    stored.integers(proto, stored.STORED, of("int8"))
    stored.half(proto, of("float16"))
    return _dynamic(proto, DYNAMIC, of("int8"))


def _light(proto: Any) -> set[bytes]:
    """The keys of weights of products too small to gain by integers.

    Scaling what goes in and what comes out costs more than such a product: attention's of one query
    are 3% slower with it.
    """
    import onnx

    inferred = onnx.shape_inference.infer_shapes(proto).graph
    shapes = {
        value.name: [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.input)
    }
    large = stored.large(proto)
    found = set()
    for node in proto.graph.node:
        if node.op_type == "MatMul" and node.input[1] in large and node.input[0] in shapes:
            value = large[node.input[1]]
            rows = int(np.prod(shapes[node.input[0]][:-1]))
            if rows * value.size < WORTH:
                found.add(key_of(value))
    return found


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


def _dynamic(proto: Any, kinds: tuple[str, ...], wanted: WeightFilter) -> Any:
    """onnxruntime's dynamic quantizer on nodes of these kinds with weights that are wanted."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    worth = {name for name, value in stored.large(proto).items() if wanted(value)}
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
    proto: Any, ends: ModelIO, recipe: Recipe, options: QuantizationOptions, samples: Tensors
) -> QuantizedModel:
    measuring, judged = split_samples(samples)
    opened = _opener(proto, ends)
    steps = static_stages(
        recipe,
        options,
        attended=bool(attention.region(_nodes(proto), "Softmax", HEAVY, ends.maps)),
        recurrent=ends.recurs,
        written_out=False,
    )
    best = select_candidate(
        steps,
        lambda plan: _quantized(_copied(proto), ends, recipe, options, measuring, plan),
        opened,
        ends,
        recipe.scheme,
        judged,
    )
    best = replace(best, told=(*best.told, *spread(proto, samples)))
    if not options.integer_io:
        return best
    with opened(None) as run:
        seen = {**samples, **run(samples)}
    for name in ends.tokens:
        del seen[name]
    inputs, outputs = use_integer_io(
        best.content, ends.inputs, ends.outputs, seen, recipe.activations
    )
    return replace(best, inputs=inputs, outputs=outputs)


def _quantized(
    proto: Any,
    ends: ModelIO,
    recipe: Recipe,
    options: QuantizationOptions,
    samples: Tensors,
    plan: Candidate,
) -> QuantizedModel:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    names = _named(proto)
    wide = recipe.activations == "int16"
    made_of, upstream = _upstream(proto, ends.maps)
    precision_of = candidate_precision(plan, ends, options, "int8", upstream)
    other = {n for n, value in stored.large(proto).items() if precision_of(value) != "int8"}
    kept: set[int] = set()
    if plan.attention:
        kept |= attention.region(_nodes(proto), "Softmax", HEAVY, ends.maps, deep=plan.deep)
    if plan.upstream:
        kept |= made_of
    excluded = [
        names[k]
        for k, node in enumerate(proto.graph.node)
        if k in kept or other.intersection(node.input)
    ]
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
    return QuantizedModel(_store(made, precision_of), ends.inputs, ends.outputs, plan)


def _upstream(proto: Any, maps: tuple[str, ...]) -> tuple[set[int], set[bytes]]:
    """Positions of the nodes that attention and its scores are made of, and the keys of the large
    constants among those."""
    found = attention.upstream(_nodes(proto), "Softmax", HEAVY, maps)
    taken = {name for k in found for name in proto.graph.node[k].input}
    return found, {key_of(v) for name, v in stored.large(proto).items() if name in taken}


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


def _opener(proto: Any, ends: ModelIO) -> OpenModel:
    """Opens what was made, or the float32 model ``proto``, in onnxruntime."""
    from edgeattn.runners.onnx import ONNXRunner

    @contextlib.contextmanager
    def opened(made: QuantizedModel | None) -> Iterator[RunFunction]:
        item = made or QuantizedModel(proto, ends.inputs, ends.outputs)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(item.content.SerializeToString())
            yield ONNXRunner(path, item.inputs, item.outputs).run

    return opened
