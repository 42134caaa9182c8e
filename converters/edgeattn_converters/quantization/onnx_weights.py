"""Constants of an ONNX model in fewer bits, computed back to float32 when the file is loaded.

A ``Cast`` and a ``Mul`` by the scales, of constants: every onnxruntime folds these while it loads,
so that the model runs at float32's speed from a file of a quarter of the size. A
``DequantizeLinear`` would stand in their place, but onnxruntime does not fold that unless the
session is told to (``session.disable_quant_qdq``), and other people's sessions are not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.tflite_pack import pack_int4
from edgeattn_converters.quantization.tflite_weights import (
    FLOAT16_MAX,
    MIN_ELEMENTS,
    WeightFilter,
    everything,
    symmetric,
)

# Positions of the weights, and the axis of their channels, in operators with no kernel for int8
# weights under float32 activations that is as fast as float32's.
STORED = {"GRU": {1: 1, 2: 1}, "RNN": {1: 1, 2: 1}, "Conv": {1: 0}, "ConvTranspose": {1: 1}}
RECURRENT = ("GRU", "RNN", "LSTM")
# And in those that have one, which scales its activations to int8 as well.
AXES = {**STORED, "LSTM": {1: 1, 2: 1}, "MatMul": {1: 1}, "Gemm": {1: 0}}


def half(proto: Any, wanted: WeightFilter = everything) -> None:
    """Large float32 constants become float16, in place."""
    for item in list(proto.graph.initializer):
        value = _large(item)
        if value is None or np.abs(value).max() > FLOAT16_MAX or not wanted(value):
            continue
        _replace(proto, item, value.astype(np.float16), None)


def integers(
    proto: Any,
    kinds: Iterable[str] = tuple(STORED),
    wanted: WeightFilter = everything,
    bits: int = 8,
) -> None:
    """Large weights of these operators become int8 or int4 with a scale per channel, in place."""
    levels = 2 ** (bits - 1) - 1
    uses = users(proto)
    for item in list(proto.graph.initializer):
        value = _large(item)
        found = uses.get(item.name, [])
        if value is None or not found:
            continue
        if not wanted(value):
            continue
        axes = {AXES.get(node.op_type, {}).get(position) for node, position in found}
        if None in axes or len(axes) != 1 or any(node.op_type not in kinds for node, _ in found):
            continue
        axis = axes.pop()
        shape = [1] * value.ndim
        shape[axis or 0] = -1
        if all(node.op_type in RECURRENT for node, _ in found):
            # (directions, gates, features): each direction has scales of its own.
            small, scale = symmetric(value.reshape(-1, value.shape[2]), 0, levels)
            small, shape = small.reshape(value.shape), [*value.shape[:2], 1]
        else:
            small, scale = symmetric(value, axis, levels)
        _replace(proto, item, small, scale.reshape(shape), bits)


def tables(proto: Any, wanted: WeightFilter = everything) -> None:
    """Embedding tables become int8, in place: only what was looked up is made float32 again."""
    from onnx import TensorProto, helper, numpy_helper

    uses = users(proto)
    for item in list(proto.graph.initializer):
        value = _large(item)
        found = uses.get(item.name, [])
        if value is None or not found:
            continue
        if any(node.op_type != "Gather" or position != 0 for node, position in found):
            continue
        if not wanted(value):
            continue
        integers, scale = symmetric(value, None)
        name = item.name
        proto.graph.initializer.remove(item)
        proto.graph.initializer.extend(
            [
                numpy_helper.from_array(integers, name),
                numpy_helper.from_array(scale.reshape(()), f"{name}/scale"),
            ]
        )
        for node, _ in found:
            result = node.output[0]
            node.output[0] = f"{result}/int8"
            after = [
                helper.make_node(
                    "Cast", [f"{result}/int8"], [f"{result}/cast"], to=TensorProto.FLOAT
                ),
                helper.make_node("Mul", [f"{result}/cast", f"{name}/scale"], [result]),
            ]
            at = next(k for k, other in enumerate(proto.graph.node) if other is node) + 1
            for extra in reversed(after):
                proto.graph.node.insert(at, extra)


def users(proto: Any) -> dict[str, list[tuple[Any, int]]]:
    """For each value of the main graph the nodes that take it, and at which position."""
    found: dict[str, list[tuple[Any, int]]] = {}
    for node in proto.graph.node:
        for position, name in enumerate(node.input):
            found.setdefault(name, []).append((node, position))
    return found


def large(proto: Any) -> dict[str, Array]:
    """The float32 constants of the main graph that are worth it, by name."""
    found = {item.name: _large(item) for item in proto.graph.initializer}
    return {name: value for name, value in found.items() if value is not None}


def _large(item: Any) -> Array | None:
    from onnx import TensorProto, numpy_helper

    if item.data_type != TensorProto.FLOAT or int(np.prod(item.dims)) < MIN_ELEMENTS:
        return None
    value: Array = numpy_helper.to_array(item)
    return value


def _replace(proto: Any, item: Any, small: Array, scale: Array | None, bits: int = 8) -> None:
    from onnx import TensorProto, helper, numpy_helper

    name = item.name
    proto.graph.initializer.remove(item)
    kept = numpy_helper.from_array(small, f"{name}/stored")
    if bits == 4:
        data = pack_int4(small).tobytes()
        kept = helper.make_tensor(kept.name, TensorProto.INT4, small.shape, data, raw=True)
    proto.graph.initializer.append(kept)
    cast = name if scale is None else f"{name}/cast"
    nodes = [helper.make_node("Cast", [f"{name}/stored"], [cast], to=TensorProto.FLOAT)]
    if scale is not None:
        proto.graph.initializer.append(numpy_helper.from_array(scale, f"{name}/scale"))
        nodes.append(helper.make_node("Mul", [cast, f"{name}/scale"], [name]))
    for node in reversed(nodes):
        proto.graph.node.insert(0, node)
