"""Graphs of ``.tflite`` files, including loop bodies."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeattn.diagnosis.graph import Constant, Encoding, Graph, Operator
from edgeattn.tensors import Array

RECODING = ("QUANTIZE", "DEQUANTIZE")
# Options that distinguish operators of one kind with the same inputs.
VARIANT_OPTIONS = ("axis", "num", "keepDims", "fusedActivationFunction", "strideH", "strideW")
# Options that quantizers do not change.
ATTRIBUTES = ("beta", "alpha", "cellClip", "projClip", "epsilon")
DTYPES = {
    name.upper(): name
    for name in ("float32", "float16", "int4", "int8", "uint8", "int16", "int32", "int64", "bool")
}


def read_graph(
    schema: Any,
    model: Any,
    subgraph: int = 0,
    *,
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
) -> Graph:
    """Return a subgraph of ``model``, by default the main one.

    Tensors are named by their index, in loop bodies by subgraph and index: ``3:17``. ``inputs`` and
    ``outputs`` map names to tensors; without them, inputs and outputs are numbered.
    """
    graph = model.subgraphs[subgraph]
    prefix = f"{subgraph}:" if subgraph else ""

    def tensor_name(index: Any) -> str:
        return f"{prefix}{int(index)}"

    constants: dict[str, Constant] = {}
    encodings: dict[str, Encoding] = {}
    for index, tensor in enumerate(graph.tensors):
        encoding = _encoding(schema, tensor)
        values = _constant_values(model, tensor, encoding)
        if values is not None:
            constants[tensor_name(index)] = Constant(values, encoding)
        elif encoding.scale is not None:
            encodings[tensor_name(index)] = encoding
    operators: list[Operator] = []
    decoded: set[str] = set()
    bodies: dict[int, Graph] = {}
    for position, operator in enumerate(graph.operators):
        kind = _kind(schema, model, operator)
        input_names = tuple("" if int(i) < 0 else tensor_name(i) for i in operator.inputs)
        output_names = tuple(tensor_name(i) for i in operator.outputs)
        if kind in RECODING and input_names[0] in constants:
            # Weights that are stored small and decoded when the file is loaded.
            constants[output_names[0]] = constants[input_names[0]]
            decoded.add(output_names[0])
            continue
        if kind == "WHILE":
            body = int(operator.builtinOptions.bodySubgraphIndex)
            bodies[position] = read_graph(schema, model, body)
        # A float input with integer weights is quantized by the operator itself.
        weights = [constants[n] for n in input_names if n in constants and n not in decoded]
        quantizes_input = (
            bool(input_names)
            and input_names[0] not in encodings
            and input_names[0] not in constants
            and any(constant.encoding.dtype == "int8" for constant in weights)
        )
        options = operator.builtinOptions
        operators.append(
            Operator(
                position,
                kind,
                input_names,
                output_names,
                kind in RECODING,
                quantizes_input,
                ",".join(
                    f"{n}={getattr(options, n)}" for n in VARIANT_OPTIONS if hasattr(options, n)
                ),
                {n: f"{getattr(options, n):.6g}" for n in ATTRIBUTES if hasattr(options, n)},
            )
        )
    return Graph(
        tuple(operators),
        constants,
        inputs or {str(k): tensor_name(index) for k, index in enumerate(graph.inputs)},
        outputs or {str(k): tensor_name(index) for k, index in enumerate(graph.outputs)},
        encodings,
        {
            tensor_name(k): _text(tensor.name)
            for k, tensor in enumerate(graph.tensors)
            if tensor.name
        },
        bodies,
    )


def type_names(schema: Any) -> dict[int, str]:
    return {v: k for k, v in vars(schema.TensorType).items() if isinstance(v, int)}


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "")


def _kind(schema: Any, model: Any, operator: Any) -> str:
    code = model.operatorCodes[operator.opcodeIndex]
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    return str(names[max(code.builtinCode, code.deprecatedBuiltinCode)])


def _encoding(schema: Any, tensor: Any) -> Encoding:
    dtype = DTYPES.get(type_names(schema)[tensor.type], "other")
    quantization = tensor.quantization
    scales = None if quantization is None else quantization.scale
    if scales is None or not len(scales) or "int" not in dtype:
        return Encoding(dtype)
    if len(scales) > 1:
        return Encoding(dtype, None, 0, int(quantization.quantizedDimension))
    zero_point = quantization.zeroPoint
    return Encoding(dtype, float(scales[0]), 0 if zero_point is None else int(zero_point[0]))


def _constant_values(model: Any, tensor: Any, encoding: Encoding) -> Array | None:
    """Return the decoded values of ``tensor``, ``None`` if it is not constant."""
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data) or encoding.dtype == "other":
        return None
    shape = tensor.shape if tensor.shape is not None else ()
    stored = (
        _unpack_int4(data, shape)
        if encoding.dtype == "int4"
        else np.frombuffer(bytes(data), encoding.dtype).reshape(shape)
    )
    if encoding.channel_axis is None:
        return encoding.decode(stored)
    channels = [1] * stored.ndim
    channels[encoding.channel_axis] = -1
    scale = np.asarray(tensor.quantization.scale, np.float64).reshape(channels)
    zero_point = np.asarray(tensor.quantization.zeroPoint, np.float64).reshape(channels)
    return np.asarray((stored - zero_point) * scale, np.float32)


def _unpack_int4(data: Any, shape: Any) -> Array:
    """Unpack two int4 values per byte; the first is in the lower half."""
    packed = np.frombuffer(bytes(data), np.uint8)
    halves = np.stack([packed & 15, packed >> 4], axis=-1).ravel()[: int(np.prod(shape))]
    return ((halves.astype(np.int8) ^ 8) - 8).reshape(shape)
