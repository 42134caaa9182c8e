"""Integer activations in an ONNX model, by onnxruntime's static quantizer."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeattn.tensors import Array, Specs, Tensors
from edgeattn_converters.graphs.onnx_file import name_nodes, written_model
from edgeattn_converters.quantization.tflite_int16 import HEADROOM

# Operators whose int8 kernels in onnxruntime are worth the conversions.
INT8_OPERATORS = (
    *("MatMul", "Gemm", "Conv", "Add", "Mul", "Relu", "Sigmoid", "MaxPool", "AveragePool"),
    *("GlobalAveragePool", "Concat", "Reshape", "Transpose", "Squeeze", "Unsqueeze"),
)
# onnxruntime has no int16 kernels and emulates them; the products are what affects the results.
INT16_OPERATORS = ("MatMul", "Gemm", "Conv", "Add", "Mul")


def quantize_activations(
    proto: Any, inputs: Specs, floats: set[int], dtype: str, samples: Tensors
) -> Any:
    """The model with int8 or int16 activations (``dtype``) and ranges measured on ``samples``.

    The nodes at the positions ``floats`` stay float32; ``proto`` is changed.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    names = name_nodes(proto)
    is_int16 = dtype == "int16"
    quantized = written_model(
        lambda path: quantize_static(
            proto,
            path,
            _Batches(inputs, samples),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(INT16_OPERATORS if is_int16 else INT8_OPERATORS),
            nodes_to_exclude=[names[k] for k in sorted(floats)],
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

    def __init__(self, specs: Specs, samples: Tensors, rows: int = 16) -> None:
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
