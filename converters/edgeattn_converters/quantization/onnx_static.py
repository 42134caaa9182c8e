"""Integer activations in an ONNX model, by onnxruntime's static quantizer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeattn.tensors import Array, Tensors, TensorSpec
from edgeattn_converters.graphs.onnx_file import name_nodes, written_model
from edgeattn_converters.quantization.candidates import Candidate
from edgeattn_converters.quantization.model import ModelIO
from edgeattn_converters.quantization.onnx_operators import attention_graph, upstream_nodes
from edgeattn_converters.quantization.onnx_weights import large_constants
from edgeattn_converters.quantization.tflite_int16 import HEADROOM
from edgeattn_converters.quantization.weight_precision import PrecisionOf

# Operators whose int8 kernels in onnxruntime are worth the conversions.
INT8_OPERATORS = (
    *("MatMul", "Gemm", "Conv", "Add", "Mul", "Relu", "Sigmoid", "MaxPool", "AveragePool"),
    *("GlobalAveragePool", "Concat", "Reshape", "Transpose", "Squeeze", "Unsqueeze"),
)
# onnxruntime has no int16 kernels and emulates them; the products are what affects the results.
INT16_OPERATORS = ("MatMul", "Gemm", "Conv", "Add", "Mul")


def quantize_activations(
    proto: Any,
    io: ModelIO,
    candidate: Candidate,
    precision_of: PrecisionOf,
    dtype: str,
    samples: Tensors,
) -> Any:
    """The model with int8 or int16 activations (``dtype``) and ranges measured on ``samples``.

    The nodes that ``candidate`` keeps in float32, and those with weights that are not int8, stay.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    names = name_nodes(proto)
    is_int16 = dtype == "int16"
    not_int8 = {n for n, value in large_constants(proto).items() if precision_of(value) != "int8"}
    floats: set[int] = set()
    if candidate.attention:
        floats |= attention_graph(proto, io.maps).region(projections=candidate.projections)
    if candidate.upstream:
        floats |= upstream_nodes(proto, io.maps)[0]
    excluded = [
        names[k]
        for k, node in enumerate(proto.graph.node)
        if k in floats or not_int8.intersection(node.input)
    ]
    quantized = written_model(
        lambda path: quantize_static(
            proto,
            path,
            _Batches(io.inputs, samples),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(INT16_OPERATORS if is_int16 else INT8_OPERATORS),
            nodes_to_exclude=excluded,
            per_channel=True,
            activation_type=QuantType.QInt16 if is_int16 else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": is_int16,
                "UseQDQContribOps": is_int16,
                "CalibMaxIntermediateOutputs": 64,
            },
        )
    )
    if is_int16:
        _add_headroom(quantized)
    return quantized


def _add_headroom(proto: Any) -> None:
    """Double the ranges of int16 activations, in place; see :mod:`.tflite_int16`."""
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


class _Batches:
    """Samples in the form of onnxruntime's ``CalibrationDataReader``."""

    def __init__(self, specs: tuple[TensorSpec, ...], samples: Tensors, rows: int = 16) -> None:
        self._specs, self._samples, self._rows = specs, samples, rows
        self._batches = self._iterate()

    def _iterate(self) -> Iterator[dict[str, Array]]:
        for start in range(0, len(self), self._rows):
            rows = slice(start, start + self._rows)
            yield {
                spec.name: np.ascontiguousarray(self._samples[spec.name][rows])
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
