"""Integer inputs and outputs of an ONNX model, as ``tflite_integer_io`` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edgeattn.tensors import Tensors, TensorSpec
from edgeattn_converters.quantization.tflite_integer_io import scale_of

CODES = {"int8": 3, "int16": 5}  # TensorProto.DataType


def use_integer_io(
    proto: Any,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    seen: Tensors,
    dtype: str,
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Float inputs and outputs become ``dtype``, in place: what they then are.

    ``seen`` are values of those that are meant, which the ranges are taken from.
    """
    told_in = tuple(_end(proto, spec, seen, dtype, entering=True) for spec in inputs)
    told_out = tuple(_end(proto, spec, seen, dtype, entering=False) for spec in outputs)
    return told_in, told_out


def _end(
    proto: Any,
    spec: TensorSpec,
    seen: Mapping[str, Any],
    dtype: str,
    *,
    entering: bool,
) -> TensorSpec:
    from onnx import helper, numpy_helper

    if spec.dtype != "float32" or spec.name not in seen:
        return spec
    values = seen[spec.name]
    scale, zero_point = scale_of(float(values.min()), float(values.max()), dtype)
    inner = f"{spec.name}/float32"
    for node in proto.graph.node:
        node.input[:] = [inner if name == spec.name else name for name in node.input]
        node.output[:] = [inner if name == spec.name else name for name in node.output]
    parameters = [f"{spec.name}/scale", f"{spec.name}/zero_point"]
    proto.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(scale, np.float32), parameters[0]),
            numpy_helper.from_array(np.array(zero_point, dtype), parameters[1]),
        ]
    )
    if entering:
        node = helper.make_node("DequantizeLinear", [spec.name, *parameters], [inner])
        proto.graph.node.insert(0, node)
    else:
        proto.graph.node.append(
            helper.make_node("QuantizeLinear", [inner, *parameters], [spec.name])
        )
    ends = proto.graph.input if entering else proto.graph.output
    value = next(item for item in ends if item.name == spec.name)
    value.type.tensor_type.elem_type = CODES[dtype]
    return replace(spec, dtype=dtype, scale=scale, zero_point=zero_point)
