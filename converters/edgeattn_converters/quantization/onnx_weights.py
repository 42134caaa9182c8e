"""Storing constants of an ONNX model in fewer bits and computing float32 from them at load time.

The conversion is a ``Cast`` and a ``Mul`` of constants, which every onnxruntime folds when it loads
a model: the file has a quarter of the size, and the model runs as fast as in float32. onnxruntime
folds a ``DequantizeLinear`` only with a session option (``session.disable_quant_qdq``) that other
people's sessions do not set.
"""

from collections.abc import Collection
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.onnx_file import (
    add_constant,
    consumers,
    float_constants,
    insert_nodes,
    remove_constant,
)
from edgeattn_converters.graphs.tflite_pack import pack_int4
from edgeattn_converters.quantization.arithmetic import (
    FLOAT16_MAX,
    MIN_ELEMENTS,
    quantize_symmetric,
)
from edgeattn_converters.quantization.weight_precision import WeightFilter

# Its inputs are kernels of cells in Keras' layout, with the channels last.
LOOP = "Loop"
# The weights of each operator among its inputs, with the axis of their channels. The first group
# has no kernel for int8 weights and float32 activations that is as fast as that for float32.
STORED: dict[str, dict[int, int]] = {
    "GRU": {1: 1, 2: 1},
    "RNN": {1: 1, 2: 1},
    "Conv": {1: 0},
    "ConvTranspose": {1: 1},
    LOOP: {},
}
CHANNELS = {**STORED, "LSTM": {1: 1, 2: 1}, "MatMul": {1: 1}, "Gemm": {1: 0}}
RECURRENT = ("GRU", "RNN", "LSTM")


def large_constants(proto: Any) -> dict[str, Array]:
    """The float32 constants of the main graph that are large enough to be quantized, by name."""
    return float_constants(proto, MIN_ELEMENTS)


def store_float16(proto: Any, is_float16: WeightFilter) -> None:
    """Large float32 constants become float16, in place, if their values fit."""
    for name, value in large_constants(proto).items():
        if np.abs(value).max() <= FLOAT16_MAX and is_float16(value):
            remove_constant(proto, name)
            add_constant(proto, f"{name}/stored", value.astype(np.float16))
            insert_nodes(proto, 0, [_cast(f"{name}/stored", name)])


def store_integers(
    proto: Any, operators: Collection[str], is_integer: WeightFilter, bits: int = 8
) -> None:
    """Large weights of these operators become integers with one scale per channel, in place."""
    largest_integer = 2 ** (bits - 1) - 1
    users = consumers(proto)
    for name, value in large_constants(proto).items():
        uses = users.get(name, [])
        if not uses or not is_integer(value):
            continue
        axes = {_channel_axis(node, position, value.ndim) for node, position in uses}
        if None in axes or len(axes) != 1 or any(node.op_type not in operators for node, _ in uses):
            continue
        axis = axes.pop()
        shape = [1] * value.ndim
        shape[axis or 0] = -1
        if all(node.op_type in RECURRENT for node, _ in uses):
            # (directions, gates, features): each direction has its own scales.
            rows = value.reshape(-1, value.shape[2])
            integers, scale = quantize_symmetric(rows, 0, largest_integer)
            integers, shape = integers.reshape(value.shape), [*value.shape[:2], 1]
        else:
            integers, scale = quantize_symmetric(value, axis, largest_integer)
        _replace_by_integers(proto, name, integers, scale.reshape(shape), bits)


def _channel_axis(node: Any, position: int, rank: int) -> int | None:
    """The axis of the channels in a weight at this position among a node's inputs, if any."""
    return rank - 1 if node.op_type == LOOP else CHANNELS.get(node.op_type, {}).get(position)


def store_tables(proto: Any, is_int8: WeightFilter) -> None:
    """Embedding tables become int8, in place; only the looked-up rows are dequantized."""
    users = consumers(proto)
    for name, value in large_constants(proto).items():
        uses = users.get(name, [])
        if not uses or any(node.op_type != "Gather" or position for node, position in uses):
            continue
        if not is_int8(value):
            continue
        integers, scale = quantize_symmetric(value, None)
        remove_constant(proto, name)
        add_constant(proto, name, integers)
        add_constant(proto, f"{name}/scale", scale.reshape(()))
        for node, _ in uses:
            result = node.output[0]
            node.output[0] = f"{result}/int8"
            position = next(k for k, other in enumerate(proto.graph.node) if other is node) + 1
            conversion = [
                _cast(f"{result}/int8", f"{result}/cast"),
                _multiply(f"{result}/cast", f"{name}/scale", result),
            ]
            insert_nodes(proto, position, conversion)


def _replace_by_integers(proto: Any, name: str, integers: Array, scale: Array, bits: int) -> None:
    from onnx import TensorProto, helper

    remove_constant(proto, name)
    if bits == 4:
        data = pack_int4(integers).tobytes()
        proto.graph.initializer.append(
            helper.make_tensor(f"{name}/stored", TensorProto.INT4, integers.shape, data, raw=True)
        )
    else:
        add_constant(proto, f"{name}/stored", integers)
    add_constant(proto, f"{name}/scale", scale)
    conversion = [
        _cast(f"{name}/stored", f"{name}/cast"),
        _multiply(f"{name}/cast", f"{name}/scale", name),
    ]
    insert_nodes(proto, 0, conversion)


def _cast(source: str, target: str) -> Any:
    from onnx import TensorProto, helper

    return helper.make_node("Cast", [source], [target], to=TensorProto.FLOAT)


def _multiply(value: str, scale: str, target: str) -> Any:
    from onnx import helper

    return helper.make_node("Mul", [value, scale], [target])
