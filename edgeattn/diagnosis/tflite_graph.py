"""A ``.tflite`` file's description as operators and tensors, the bodies of its loops among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeattn.diagnosis.graph import Constant, Encoding, Graph, Operator
from edgeattn.tensors import Array

ROUNDING = ("QUANTIZE", "DEQUANTIZE")
# What tells operators of one kind with the same inputs from each other.
TELLING = ("axis", "num", "keepDims", "fusedActivationFunction", "strideH", "strideW")

# What a quantizer leaves as it is.
NUMBERS = ("beta", "alpha", "cellClip", "projClip", "epsilon")
DTYPES = {
    name.upper(): name
    for name in ("float32", "float16", "int4", "int8", "uint8", "int16", "int32", "int64", "bool")
}


def read_graph(
    schema: Any,
    model: Any,
    place: int = 0,
    *,
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
) -> Graph:
    """One graph of a file: the main one, or that of a loop.

    Tensors are named by their numbers, with that of their graph before it in a loop: ``3:17``.
    ``inputs`` and ``outputs`` name the main graph's ends; those of others are numbered.
    """
    graph = model.subgraphs[place]
    before = f"{place}:" if place else ""

    def named(index: Any) -> str:
        return f"{before}{int(index)}"

    constants: dict[str, Constant] = {}
    stored: dict[str, Encoding] = {}
    for index, tensor in enumerate(graph.tensors):
        kept = _stored(schema, tensor)
        value = _constant(model, tensor, kept)
        if value is not None:
            constants[named(index)] = Constant(value, kept)
        elif kept.scale is not None:
            stored[named(index)] = kept
    operators: list[Operator] = []
    derived: set[str] = set()
    bodies: dict[int, Graph] = {}
    for position, operator in enumerate(graph.operators):
        kind = _kind(schema, model, operator)
        names = tuple("" if int(i) < 0 else named(i) for i in operator.inputs)
        results = tuple(named(i) for i in operator.outputs)
        if kind in ROUNDING and names[0] in constants:
            constants[results[0]] = constants[names[0]]  # weights, kept small
            derived.add(results[0])
            continue
        if kind == "WHILE":
            body = int(operator.builtinOptions.bodySubgraphIndex)
            bodies[position] = read_graph(schema, model, body)
        # Integer weights beside numbers that are none: those are scaled to integers inside.
        weights = [constants[name] for name in names if name in constants and name not in derived]
        hybrid = bool(names) and names[0] not in stored and names[0] not in constants
        hybrid &= any(constant.stored.dtype == "int8" for constant in weights)
        set_to = operator.builtinOptions
        operators.append(
            Operator(
                position,
                kind,
                names,
                results,
                kind in ROUNDING,
                hybrid,
                ",".join(f"{n}={getattr(set_to, n)}" for n in TELLING if hasattr(set_to, n)),
                {n: f"{getattr(set_to, n):.6g}" for n in NUMBERS if hasattr(set_to, n)},
            )
        )
    return Graph(
        tuple(operators),
        constants,
        inputs or {str(k): named(index) for k, index in enumerate(graph.inputs)},
        outputs or {str(k): named(index) for k, index in enumerate(graph.outputs)},
        stored,
        {named(k): _text(tensor.name) for k, tensor in enumerate(graph.tensors) if tensor.name},
        bodies,
    )


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "")


def type_names(schema: Any) -> dict[int, str]:
    return {v: k for k, v in vars(schema.TensorType).items() if isinstance(v, int)}


def _kind(schema: Any, model: Any, operator: Any) -> str:
    code = model.operatorCodes[operator.opcodeIndex]
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    return str(names[max(code.builtinCode, code.deprecatedBuiltinCode)])


def _stored(schema: Any, tensor: Any) -> Encoding:
    dtype = DTYPES.get(type_names(schema)[tensor.type], "other")
    parameters = tensor.quantization
    scales = None if parameters is None else parameters.scale
    if scales is None or not len(scales) or "int" not in dtype:
        return Encoding(dtype)
    zero = parameters.zeroPoint
    if len(scales) > 1:
        return Encoding(dtype, None, 0, int(parameters.quantizedDimension))
    return Encoding(dtype, float(scales[0]), 0 if zero is None else int(zero[0]))


def _unpacked(data: Any, shape: Any) -> Array:
    """Two int4 in each byte, the first in its lower half."""
    packed = np.frombuffer(bytes(data), np.uint8)
    halves = np.stack([packed & 15, packed >> 4], axis=-1).ravel()[: int(np.prod(shape))]
    return ((halves.astype(np.int8) ^ 8) - 8).reshape(shape)


def _constant(model: Any, tensor: Any, stored: Encoding) -> Array | None:
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data) or stored.dtype == "other":
        return None
    shape = tensor.shape if tensor.shape is not None else ()
    value = (
        _unpacked(data, shape)
        if stored.dtype == "int4"
        else (np.frombuffer(bytes(data), stored.dtype).reshape(shape))
    )
    if stored.scale is None and stored.channels is None:
        return value.astype(np.float32) if stored.dtype == "float16" else value
    scale = np.asarray(tensor.quantization.scale, np.float64)
    zero = np.asarray(tensor.quantization.zeroPoint, np.float64)
    if stored.channels is not None:
        shape = [1] * value.ndim
        shape[stored.channels] = len(scale)
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return np.asarray((value - zero) * scale, np.float32)
