"""Integer inputs and outputs of an ONNX model, as in :mod:`.tflite_integer_io`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edgeattn.tensors import TensorSpec
from edgeattn_converters.graphs.onnx_file import add_constant
from edgeattn_converters.quantization.arithmetic import affine_parameters
from edgeattn_converters.quantization.ranges import Range

TYPE_CODES = {"int8": 3, "int16": 5}  # TensorProto.DataType


def use_integer_io(
    proto: Any,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    ranges: Mapping[str, Range],
    dtype: str,
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Float inputs and outputs become ``dtype``, in place; returns the changed specs.

    Those without a range, by name, stay unchanged.
    """

    def converted(specs: tuple[TensorSpec, ...], *, is_input: bool) -> tuple[TensorSpec, ...]:
        return tuple(
            _convert(proto, spec, ranges[spec.name], dtype, is_input=is_input)
            if spec.dtype == "float32" and spec.name in ranges
            else spec
            for spec in specs
        )

    return converted(inputs, is_input=True), converted(outputs, is_input=False)


def _convert(
    proto: Any, spec: TensorSpec, limits: Range, dtype: str, *, is_input: bool
) -> TensorSpec:
    from onnx import helper

    scale, zero_point = affine_parameters(*limits, dtype)
    inner = f"{spec.name}/float32"
    for node in proto.graph.node:
        node.input[:] = [inner if name == spec.name else name for name in node.input]
        node.output[:] = [inner if name == spec.name else name for name in node.output]
    parameters = [f"{spec.name}/scale", f"{spec.name}/zero_point"]
    add_constant(proto, parameters[0], np.array(scale, np.float32))
    add_constant(proto, parameters[1], np.array(zero_point, dtype))
    if is_input:
        node = helper.make_node("DequantizeLinear", [spec.name, *parameters], [inner])
        proto.graph.node.insert(0, node)
    else:
        node = helper.make_node("QuantizeLinear", [inner, *parameters], [spec.name])
        proto.graph.node.append(node)
    values = proto.graph.input if is_input else proto.graph.output
    value = next(item for item in values if item.name == spec.name)
    value.type.tensor_type.elem_type = TYPE_CODES[dtype]
    return replace(spec, dtype=dtype, scale=scale, zero_point=zero_point)
