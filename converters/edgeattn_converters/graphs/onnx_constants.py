"""Constants of ONNX models that follow from other constants.

tf2onnx writes ``Einsum`` with the shapes of both operands, and computes them in the file. A file
would contain a weight once more for its sizes, in float32 if its other uses are quantized, and
would reshape a weight in every run, which quantizers then do not recognize as one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.onnx_file import add_constant, all_nodes, bodies, consumers

# With which sizes are computed from the shapes of operands.
_OF_SIZES = frozenset({"Gather", "Concat", "ReduceProd", "Mul", "Max", "Cast", "Slice"})


def fold_constants(proto: Any) -> None:
    """Replace the shapes of constants, sizes computed from them, and weights in other shapes."""
    constants = {item.name: item for item in proto.graph.initializer}
    kept = _names_outside(proto)
    folded: set[str] = set()
    for node in proto.graph.node:
        if node.output[0] in kept:
            continue
        if node.op_type == "Shape" and node.input[0] in constants:
            value = np.array(constants[node.input[0]].dims, np.int64)
        elif node.op_type in _OF_SIZES and _are_integers(node.input, constants):
            value = _result(proto, node, constants)
        else:
            continue
        _add(proto, node.output[0], value, constants)
        folded.add(node.output[0])
    _remove_nodes(proto, folded)
    readers = consumers(proto)
    for name, users in readers.items():
        nodes = [user for user, _ in users]
        reshaped = all(_reshapes(node, name, constants) for node in nodes)
        if name in constants and reshaped and kept.isdisjoint(node.output[0] for node in nodes):
            _reshape(proto, nodes, readers, constants)
            folded.update(node.output[0] for node in nodes)
    _remove_nodes(proto, folded)
    for name, users in consumers(proto).items():
        nodes = [user for user, _ in users]
        if name in constants and all(_is_product(node, name) for node in nodes):
            _multiply(proto, name, nodes, constants)
    _remove_unused(proto)


def _names_outside(proto: Any) -> set[str]:
    """The outputs of the graph, and what the bodies of its nodes read."""
    inner = (
        inside for node in proto.graph.node for body in bodies(node) for inside in all_nodes(body)
    )
    outputs = {value.name for value in proto.graph.output}
    return outputs | {name for node in inner for name in node.input}


def _are_integers(names: Any, constants: Mapping[str, Any]) -> bool:
    from onnx import TensorProto

    integers = (TensorProto.INT32, TensorProto.INT64)
    return all(name in constants and constants[name].data_type in integers for name in names)


def _reshapes(node: Any, name: str, constants: Mapping[str, Any]) -> bool:
    return node.op_type == "Reshape" and node.input[0] == name and node.input[1] in constants


def _reshape(
    proto: Any, nodes: list[Any], readers: Mapping[str, Any], constants: dict[str, Any]
) -> None:
    """Compute ``nodes``, which reshape the same constant; equal results are one constant."""
    names: dict[tuple[int, ...], str] = {}
    for node in nodes:
        value = _result(proto, node, constants)
        name = names.setdefault(value.shape, node.output[0])
        if name == node.output[0]:
            _add(proto, name, value, constants)
        for user, position in readers.get(node.output[0], ()):
            user.input[position] = name


def _is_product(node: Any, name: str) -> bool:
    """Whether ``node`` is a Gemm that only multiplies by the transposed matrix with this name."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    transposed = attributes.pop("transB", None)
    return (
        node.op_type == "Gemm"
        and list(node.input)[1:] == [name]
        and transposed is not None
        and transposed.i == 1
        and all(attributes[key].f == 1 for key in attributes if key == "alpha")
        and all(attributes[key].i == 0 for key in attributes if key == "transA")
    )


def _multiply(proto: Any, name: str, nodes: list[Any], constants: dict[str, Any]) -> None:
    """Let ``nodes`` be products with the matrix itself, for which quantizers have kernels."""
    from onnx import numpy_helper

    value = numpy_helper.to_array(constants[name])
    _add(proto, f"{name}__transposed", np.ascontiguousarray(value.T), constants)
    for node in nodes:
        node.op_type = "MatMul"
        node.input[1] = f"{name}__transposed"
        del node.attribute[:]


def _add(proto: Any, name: str, value: Array, constants: dict[str, Any]) -> None:
    add_constant(proto, name, value)
    constants[name] = proto.graph.initializer[-1]


def _remove_nodes(proto: Any, outputs: set[str]) -> None:
    nodes = [node for node in proto.graph.node if node.output[0] not in outputs]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _result(proto: Any, node: Any, constants: Mapping[str, Any]) -> Array:
    """What ``node`` computes from constants."""
    from onnx import helper, numpy_helper, reference

    inputs = {name: numpy_helper.to_array(constants[name]) for name in node.input}
    specs = [
        helper.make_tensor_value_info(name, constants[name].data_type, value.shape)
        for name, value in inputs.items()
    ]
    result = helper.make_empty_tensor_value_info(node.output[0])
    graph = helper.make_graph([node], "constants", specs, [result])
    model = helper.make_model(graph, opset_imports=proto.opset_import)
    (value,) = reference.ReferenceEvaluator(model).run(None, inputs)
    return np.asarray(value)


def _remove_unused(proto: Any) -> None:
    used = {name for node in all_nodes(proto.graph) for name in node.input}
    used |= {value.name for value in proto.graph.output}
    for item in list(proto.graph.initializer):
        if item.name not in used:
            proto.graph.initializer.remove(item)
