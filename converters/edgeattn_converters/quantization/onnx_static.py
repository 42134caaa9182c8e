"""Integer activations in an ONNX model, by onnxruntime's static quantizer."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np

from edgeattn.tensors import Array, Specs, Tensors
from edgeattn_converters.graphs.onnx_file import (
    all_nodes,
    bodies,
    consumers,
    name_nodes,
    written_model,
)
from edgeattn_converters.quantization.tflite_int16 import HEADROOM

# Operators whose int8 kernels in onnxruntime are worth the conversions.
INT8_OPERATORS = (
    *("MatMul", "Gemm", "Conv", "Add", "Mul", "Relu", "Sigmoid", "MaxPool", "AveragePool"),
    *("GlobalAveragePool", "Concat", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "LeakyRelu"),
    "Tile",
)
# These move integers only if both their input and their output are integers.
MOVING = {"MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Tile"}
# onnxruntime has no int16 kernels and emulates them; the products are what affects the results.
INT16_OPERATORS = ("MatMul", "Gemm", "Conv", "ConvTranspose", "Add", "Mul")
# Most values of a constant that are copied; larger ones are the weights of a layer called twice.
MAX_COPIED = 1024


def quantize_activations(
    proto: Any, inputs: Specs, floats: set[int], dtype: str, samples: Tensors
) -> Any:
    """The model with int8 or int16 activations (``dtype``) and ranges measured on ``samples``.

    The nodes at the positions ``floats`` stay float32; ``proto`` is changed.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.operators.direct_q8 import QDQDirect8BitOp
    from onnxruntime.quantization.registry import QDQRegistry

    names = name_nodes(proto)
    excluded = [names[k] for k in sorted(floats | _rectified_outputs(proto))]
    is_int16 = dtype == "int16"
    kinds = INT16_OPERATORS if is_int16 else INT8_OPERATORS
    rectified = {node.output[0] for node in proto.graph.node if node.op_type == "Relu"}
    # onnxruntime repeats integers, but its quantizer does not know the operator.
    with mock.patch.dict(QDQRegistry, {"Tile": QDQDirect8BitOp}):
        quantized = written_model(
            lambda path: quantize_static(
                proto,
                path,
                _Batches(inputs, samples),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(kinds),
                nodes_to_exclude=excluded,
                per_channel=True,
                activation_type=QuantType.QInt16 if is_int16 else QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={
                    "ActivationSymmetric": is_int16,
                    "UseQDQContribOps": is_int16,
                },
            )
        )
    if not is_int16:
        _clip_at_zero(quantized, rectified)
    _read_unrounded(quantized, set(kinds), set(excluded))
    _move_unrounded_into_loops(quantized)
    _separate_constants(quantized)
    if is_int16:
        _add_headroom(quantized)
        _multiply_by_scales(quantized)
    return quantized


def _rectified_outputs(proto: Any) -> set[int]:
    """The positions of ReLUs of what is an output of the model too.

    onnxruntime's quantizer gives what only a ReLU reads the range of the ReLU's result, and does
    not notice that the model returns it, so that it would have no negative values.
    """
    outputs = {value.name for value in proto.graph.output}
    return {
        k
        for k, node in enumerate(proto.graph.node)
        if node.op_type == "Relu" and node.input[0] in outputs
    }


def _clip_at_zero(proto: Any, rectified: set[str]) -> None:
    """Give the results of ReLU (``rectified``) the least zero point, in place.

    onnxruntime's quantizer drops a ReLU whose range starts at zero, because the integers clip. A
    result that is zero throughout calibration has the zero point 0, which clips nothing.
    """
    from onnx import numpy_helper

    constants = {item.name: item for item in proto.graph.initializer}
    # The quantizer keeps the name of an output of the model for the dequantized value.
    results = {n.input[0]: n.output[0] for n in proto.graph.node if n.op_type == "DequantizeLinear"}
    for node in proto.graph.node:
        names = {node.input[0], results.get(node.output[0])} if node.input else set()
        if node.op_type == "QuantizeLinear" and names & rectified:
            constant = constants[node.input[2]]
            value = numpy_helper.to_array(constant)
            if value.dtype == np.int8:
                least = np.full_like(value, np.iinfo(np.int8).min)
                constant.CopyFrom(numpy_helper.from_array(least, constant.name))


def _read_unrounded(proto: Any, kinds: set[str], excluded: set[str]) -> None:
    """Let float operators and outputs read float values as they are, in place.

    onnxruntime's quantizer rounds a value for all its readers if one of them is an integer
    operator. Beyond the measured range that is a large error, which float attention must not see.
    """
    graph = proto.graph
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in set(node.input):
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}

    def is_integer(node: Any) -> bool:
        if node.op_type not in kinds or node.name in excluded:
            return False
        rounded = {item.op_type for name in node.output for item in readers.get(name, [])}
        return node.op_type not in MOVING or "QuantizeLinear" in rounded

    def is_float(name: str) -> bool:
        maker = makers.get(name)
        if maker is None or not is_integer(maker):
            return True
        kinds_read = {makers[item].op_type for item in maker.input if item in makers}
        return "DequantizeLinear" not in kinds_read

    for node in list(graph.node):
        quantizing = makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if quantizing is None or not is_float(quantizing.input[0]):
            continue
        value, rounded = quantizing.input[0], node.output[0]
        reading = readers.get(rounded, [])
        if rounded not in outputs:
            for reader in reading:
                if not is_integer(reader):
                    _rename(reader, rounded, value)
        elif value in makers:
            # The output is the float value, and integer operators read the rounded one.
            node.output[0] = f"{rounded}/rounded"
            for reader in reading:
                if is_integer(reader):
                    _rename(reader, rounded, node.output[0])
            for other in (makers[value], *readers[value]):
                _rename(other, value, rounded)


def _move_unrounded_into_loops(proto: Any) -> None:
    """Let operators that move values for the body of a loop read unrounded values, in place.

    onnxruntime 1.32 aborts when it loads a file in which the body reads what was moved behind a
    DequantizeLinear.
    """
    makers = {name: node for node in proto.graph.node for name in node.output}
    inner = (
        node for outer in proto.graph.node for body in bodies(outer) for node in all_nodes(body)
    )
    for name in {name for node in inner for name in node.input}:
        moving, maker = None, makers.get(name)
        while maker is not None and maker.op_type in MOVING:
            moving, maker = maker, makers.get(maker.input[0])
        if moving is None or maker is None or maker.op_type != "DequantizeLinear":
            continue
        quantizing = makers.get(maker.input[0])
        if quantizing is not None and quantizing.op_type == "QuantizeLinear":
            moving.input[0] = quantizing.input[0]


def _separate_constants(proto: Any) -> None:
    """Give each reader of a small integer constant one of its own, in place.

    On x86 processors, onnxruntime 1.32 cannot load a file in which two operators read one of them
    if its sums of int8 products are to be exact.
    """
    from onnx import NodeProto

    graph = proto.graph
    constants = {item.name: item for item in graph.initializer}
    users = consumers(proto)
    nodes = []
    for node in graph.node:
        nodes.append(node)
        stored = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if stored is None:
            continue
        copies = users.get(node.output[0], [])[1:]
        if len(copies) * int(np.prod(stored.dims)) > MAX_COPIED:
            continue
        for number, (reader, position) in enumerate(copies):
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.output[0] = reader.input[position] = f"{node.output[0]}/{number}"
            for k, name in enumerate(node.input):
                constant = graph.initializer.add()
                constant.CopyFrom(constants[name])
                constant.name = copy.input[k] = f"{name}/{node.output[0]}/{number}"
            nodes.append(copy)
    del graph.node[:]
    graph.node.extend(nodes)


def _rename(node: Any, old: str, new: str) -> None:
    """Rename an input or output of a node, in place."""
    for names in (node.input, node.output):
        names[:] = [new if name == old else name for name in names]


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


def _multiply_by_scales(proto: Any) -> None:
    """Compute int8 weights of float products with a Cast and a Mul, in place.

    From a DequantizeLinear of weights and a MatMul, onnxruntime makes a MatMulNBits, which rounds
    the int16 activations to 8 bits, unless ``session.qdq_matmulnbits_accuracy_level`` is set.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = proto.graph
    constants = {item.name: item for item in graph.initializer}
    users = consumers(proto)
    nodes = []
    for node in graph.node:
        stored = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        readers = users.get(node.output[0], []) if stored is not None else []
        if stored is None or not any(reader.op_type == "MatMul" for reader, _ in readers):
            nodes.append(node)
            continue
        shape = list(numpy_helper.to_array(constants[node.input[1]]).shape)
        axes = [item.i % len(stored.dims) for item in node.attribute if item.name == "axis"]
        zero = [numpy_helper.to_array(constants[name]).any() for name in node.input[2:] if name]
        # Scales of the last axis broadcast; onnxruntime's quantizer writes no others.
        if any(zero) or (shape and axes != [len(stored.dims) - 1]):
            nodes.append(node)
            continue
        result = node.output[0]
        nodes += [
            helper.make_node("Cast", [node.input[0]], [f"{result}/cast"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{result}/cast", node.input[1]], [result]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


class _Batches:
    """Samples in the form of onnxruntime's ``CalibrationDataReader``."""

    def __init__(self, specs: Specs, samples: Tensors, rows: int = 16) -> None:
        self._specs, self._samples = specs, samples
        self._rows = specs[0].shape[0] or rows
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

    def __len__(self) -> int:
        return len(self._samples[self._specs[0].name])
