"""Quantizing a float ONNX model to a scheme."""

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from edgeattn.errors import SchemeError
from edgeattn.file_structure.onnx import read_onnx
from edgeattn.tensors import Tensors
from edgeattn_converters.graphs.onnx_file import (
    add_constant,
    convert_opset,
    copy_model,
    fix_batch_size,
    float_constants,
    inferred_shapes,
    merge_constants,
    name_nodes,
    shorten_names,
    written_model,
)
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.candidates import Candidate
from edgeattn_converters.quantization.feature_scaling import scaling_nodes
from edgeattn_converters.quantization.float_operators import (
    attention_graph,
    spectrum_nodes,
    truncated_nodes,
    upstream_nodes,
)
from edgeattn_converters.quantization.integer_io import use_onnx_integers
from edgeattn_converters.quantization.layer_weights import key_of
from edgeattn_converters.quantization.mask_values import (
    compare_onnx_integers,
    onnx_mask_values,
    with_masked_inputs,
)
from edgeattn_converters.quantization.onnx_clips import drop_clips
from edgeattn_converters.quantization.onnx_static import quantize_activations
from edgeattn_converters.quantization.onnx_weights import (
    CHANNELS,
    STORED,
    large_constants,
    store_float16,
    store_integers,
    store_tables,
)
from edgeattn_converters.quantization.output_ranges import wide_onnx_ranges, widen_onnx_outputs
from edgeattn_converters.quantization.quantized_model import (
    ModelIO,
    QuantizationSamples,
    QuantizedModel,
    model_opener,
)
from edgeattn_converters.quantization.quantizer import Quantizer
from edgeattn_converters.quantization.ranges import range_spread
from edgeattn_converters.quantization.summary import SLOW, SchemeSummary, summary_of
from edgeattn_converters.quantization.weight_precision import PrecisionOf, WeightFilter, stored_in
from edgeattn_converters.recipes import Recipe

# Nodes for which onnxruntime's dynamic quantizer has integer kernels.
DYNAMIC = ("MatMul", "LSTM")
# Their integers have one scale for all samples of a call.
SCALED_BY_CALL = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeLSTM"})
BATCH_NOTE = (
    "the batch size is 1, because onnxruntime scales activations over all samples of a call"
)
INT16_NOTE = f"{SLOW}: onnxruntime has no int16 kernels and computes in float32 between conversions"
# Fewest multiplications of a sequence for which an integer product is faster: scaling its input and
# output costs more time in a smaller one. Attention of one query is 3% slower in integers.
MIN_MULTIPLICATIONS = 1 << 16
# The operator set that introduced int4 and int16 in QuantizeLinear, and its IR version.
INTEGER_OPSET, INTEGER_IR = 21, 10


def quantize(
    proto: Any,
    io: ModelIO,
    recipe: Recipe,
    options: QuantizationOptions,
    samples: Tensors | QuantizationSamples | None,
) -> QuantizedModel:
    """Quantize a float32 model, which is not changed, and summarize the result.

    ``samples`` are real inputs, which schemes with calibrated activations need. Raises
    :class:`SchemeError` if the result does not achieve the scheme of ``recipe``.
    """
    quantizer = _ONNXQuantizer(copy_model(proto), io, recipe, options)
    model = quantizer.quantize(samples)
    if _scales_by_call(model.content):
        model = replace(model, notes=(*model.notes, BATCH_NOTE))
    if recipe.activations == "int16":
        model = replace(model, notes=(*model.notes, INT16_NOTE))
    if recipe.scheme != "float32":
        shorten_names(model.content)
    return quantizer.summarized(model)


class _ONNXQuantizer(Quantizer):
    def __init__(
        self, content: Any, io: ModelIO, recipe: Recipe, options: QuantizationOptions
    ) -> None:
        super().__init__(content, io, recipe, options)
        needs_opset = recipe.activations == "int16" or recipe.weights == "int4"
        if needs_opset and (options.opset or INTEGER_OPSET) < INTEGER_OPSET:
            raise SchemeError(
                f"{recipe.scheme} needs ONNX operator set {INTEGER_OPSET}, but --opset "
                f"{options.opset} was requested.",
                hint=f"Omit --opset, or pass --opset {INTEGER_OPSET}.",
            )
        if "int4" in (recipe.weights, *dict(options.precision).values()):
            self.content = convert_opset(content, INTEGER_OPSET)
            self.content.ir_version = max(self.content.ir_version, INTEGER_IR)
        self._measured: Tensors = {}

    def summary(self, model: QuantizedModel) -> SchemeSummary:
        return summary_of(read_onnx(model.content.SerializeToString()))

    @cached_property
    def upstream(self) -> tuple[set[Any], set[bytes]]:
        return upstream_nodes(self.content, self.io.maps)

    @cached_property
    def spectrum(self) -> tuple[set[Any], dict[bytes, int]]:
        return spectrum_nodes(self.content)

    def model(self, content: Any, candidate: Candidate) -> QuantizedModel:
        model = super().model(content, candidate)
        if not _scales_by_call(content):
            return model
        # In a larger batch, a result would depend on the other samples.
        inputs = fix_batch_size(content.graph.input, model.inputs)
        outputs = fix_batch_size(content.graph.output, model.outputs)
        return replace(model, inputs=inputs, outputs=outputs)

    def with_weights(self, candidate: Candidate) -> QuantizedModel:
        precision_of = self.precision_of(candidate)
        return self.model(store_weights(copy_model(self.content), precision_of), candidate)

    def calibrate(self, samples: Tensors) -> tuple[str, ...]:
        self._measured = samples
        return range_spread(self.content, samples)

    def with_activations(self, candidate: Candidate) -> QuantizedModel:
        precision_of = self.precision_of(candidate)
        not_int8 = {
            name
            for name, value in large_constants(self.content).items()
            if precision_of(value) != "int8"
        }
        graph = attention_graph(self.content, self.io.maps)
        floats = graph.quotients() | self.spectrum[0] | truncated_nodes(self.content)
        if not self.options.integer_io:
            floats |= scaling_nodes(self.content)
        if candidate.upstream:
            floats |= self.upstream[0]
        if candidate.attention:
            floats = floats | graph.region(projections=candidate.projections)
        positions = {
            k
            for k, node in enumerate(self.content.graph.node)
            if k in floats or not_int8.intersection(node.input)
        }
        quantized = quantize_activations(
            copy_model(self.content),
            self.io.inputs,
            positions,
            self.recipe.activations,
            self._measured,
        )
        if self.recipe.activations == "int8":
            widen_onnx_outputs(quantized, self.io)
            drop_clips(quantized)
        return self.model(store_weights(quantized, precision_of), candidate)

    def calibrated(self, samples: Tensors) -> QuantizedModel:
        model = super().calibrated(samples)
        if not self.options.integer_io:
            return model
        with model_opener(self.content, self.io)(None) as run:
            values = {**samples, **run(samples)}
        ranges = {
            name: (float(array.min()), float(array.max()))
            for name, array in values.items()
            if name not in self.io.tokens
        }
        dtype = self.recipe.activations
        ranges = with_masked_inputs(ranges, onnx_mask_values(self.content), samples, dtype)
        ranges = wide_onnx_ranges(self.content, ranges, self.io)
        inputs, outputs = use_onnx_integers(
            model.content, model.inputs, model.outputs, ranges, dtype
        )
        compare_onnx_integers(model.content, inputs)
        return replace(model, inputs=inputs, outputs=outputs)


def store_weights(proto: Any, precision_of: PrecisionOf) -> Any:
    """The model with each large weight in its precision; ``proto`` is changed."""
    small = _small_products(proto)

    def precision(value: Any) -> str:
        how = precision_of(value)
        return "int8_weights" if how == "int8" and key_of(value) in small else how

    store_tables(proto, stored_in(precision, "int8", "int8_weights", "int4"))
    store_integers(proto, CHANNELS, stored_in(precision, "int8_weights"))
    store_integers(proto, CHANNELS, stored_in(precision, "int4"), bits=4)
    store_integers(proto, STORED, stored_in(precision, "int8"))
    store_float16(proto, stored_in(precision, "float16"))
    return _use_dynamic_kernels(proto, stored_in(precision, "int8"))


def _small_products(proto: Any) -> set[bytes]:
    """The keys of the weights of products that are too small to gain by integers."""
    graph = inferred_shapes(proto).graph
    shapes = {
        value.name: [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input)
    }
    weights = large_constants(proto)
    small = set()
    for node in proto.graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights and node.input[0] in shapes:
            value = weights[node.input[1]]
            rows = int(np.prod(shapes[node.input[0]][:-1]))
            if rows * value.size < MIN_MULTIPLICATIONS:
                small.add(key_of(value))
    return small


def _use_dynamic_kernels(proto: Any, is_int8: WeightFilter) -> Any:
    """Apply onnxruntime's dynamic quantizer to the nodes with weights that are int8."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    _separate_lstms(proto)
    weights = {name for name, value in large_constants(proto).items() if is_int8(value)}
    names = name_nodes(proto)
    nodes = [
        names[k]
        for k, node in enumerate(proto.graph.node)
        if node.op_type in DYNAMIC and weights.intersection(node.input[1:3])
    ]
    if not nodes:
        return proto
    quantized = written_model(
        lambda path: quantize_dynamic(
            proto,
            path,
            op_types_to_quantize=list(DYNAMIC),
            nodes_to_quantize=nodes,
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
    )
    merge_constants(quantized, "DynamicQuantizeLSTM")
    return quantized


def _separate_lstms(proto: Any) -> None:
    """Give each LSTM weights of its own, in place.

    onnxruntime's quantizer changes the shapes of an LSTM's weights while it quantizes them, so that
    a second LSTM with the same weights would not run.
    """
    values = float_constants(proto, 1)
    used: set[str] = set()
    for k, node in enumerate(proto.graph.node):
        for position in (1, 2) if node.op_type == "LSTM" else ():
            name = node.input[position]
            if name in used and name in values:
                node.input[position] = f"{name}/{k}"
                add_constant(proto, node.input[position], values[name])
            used.add(name)


def _scales_by_call(proto: Any) -> bool:
    return any(node.op_type in SCALED_BY_CALL for node in proto.graph.node)
