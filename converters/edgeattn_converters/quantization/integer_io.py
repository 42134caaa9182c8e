"""Integer inputs and outputs of a file.

Tensors without a measured range stay unchanged. Tokens are among them, because they are indices.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edgeattn.tensors import Specs, TensorSpec
from edgeattn_converters.graphs.onnx_file import add_constant
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.arithmetic import affine_parameters
from edgeattn_converters.quantization.mask_fills import Range
from edgeattn_converters.quantization.ranges import Ranges

TYPE_CODES = {"int8": 3, "int16": 5}  # TensorProto.DataType


def use_tflite_integers(
    file: TFLiteFile, inputs: Specs, outputs: Specs, ranges: Ranges, dtype: str
) -> tuple[Specs, Specs]:
    """Float inputs and outputs become ``dtype``, in place; returns the changed specs.

    ``ranges`` are those of the graph's inputs and outputs, by tensor index.
    """
    graph = file.main
    new_specs: list[Specs] = []
    for specs, side, convert in (
        (inputs, "inputs", _integer_input),
        (outputs, "outputs", _integer_output),
    ):
        indices = [int(i) for i in getattr(graph, side)]
        changed = list(specs)
        for position, spec in enumerate(specs):
            index = indices[position]
            if spec.dtype != "float32" or index not in ranges:
                continue
            integer = convert(file, index, ranges[index], dtype)
            parameters = graph.tensors[integer].quantization
            changed[position] = replace(
                spec,
                dtype=file.dtype(graph.tensors[integer]).lower(),
                scale=float(parameters.scale[0]),
                zero_point=int(parameters.zeroPoint[0]),
            )
            graph.tensors[index].name = f"{spec.name}/float32"
            graph.tensors[integer].name = spec.name
            indices[position] = integer
        setattr(graph, side, indices)
        new_specs.append(tuple(changed))
    file.set_signature(inputs, outputs)
    return new_specs[0], new_specs[1]


def _integer_input(file: TFLiteFile, index: int, limits: Range, dtype: str) -> int:
    """The integer tensor that replaces a float input; its QUANTIZE goes, if it has no other use."""
    graph = file.main
    users = [o for o in graph.operators if index in map(int, o.inputs)]
    quantizing = [o for o in users if file.kind(o) == "QUANTIZE"]
    if len(users) == len(quantizing) == 1:
        graph.operators = [o for o in graph.operators if o is not quantizing[0]]
        return int(quantizing[0].outputs[0])
    integer = _add_integer_tensor(file, index, limits, dtype)
    graph.operators.insert(0, file.new_operator("DEQUANTIZE", [integer], [index], 2))
    return integer


def _integer_output(file: TFLiteFile, index: int, limits: Range, dtype: str) -> int:
    """The integer tensor that replaces a float output; its DEQUANTIZE goes, if nothing else reads
    it."""
    graph = file.main
    maker = next((o for o in graph.operators if index in map(int, o.outputs)), None)
    is_read = any(index in map(int, o.inputs) for o in graph.operators)
    if maker is not None and file.kind(maker) == "DEQUANTIZE" and not is_read:
        source = int(maker.inputs[0])
        if source not in map(int, graph.outputs):
            graph.operators = [o for o in graph.operators if o is not maker]
            return source
    integer = _add_integer_tensor(file, index, limits, dtype)
    graph.operators.append(file.new_operator("QUANTIZE", [index], [integer], 2))
    return integer


def _add_integer_tensor(file: TFLiteFile, index: int, limits: Range, dtype: str) -> int:
    scale, zero_point = affine_parameters(*limits, dtype)
    parameters = file.quantization(np.array([scale], np.float32), zero_point)
    shape = file.main.tensors[index].shape
    return file.add_tensor(file.main, "", dtype.upper(), shape, quantization=parameters)


def use_onnx_integers(
    proto: Any, inputs: Specs, outputs: Specs, ranges: Mapping[str, Range], dtype: str
) -> tuple[Specs, Specs]:
    """As :func:`use_tflite_integers`, for an ONNX model, whose ranges are by name."""

    def converted(specs: Specs, *, is_input: bool) -> Specs:
        return tuple(
            _convert_onnx(proto, spec, ranges[spec.name], dtype, is_input=is_input)
            if spec.dtype == "float32" and spec.name in ranges
            else spec
            for spec in specs
        )

    return converted(inputs, is_input=True), converted(outputs, is_input=False)


def _convert_onnx(
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
