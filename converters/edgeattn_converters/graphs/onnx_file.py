"""Reading and editing ONNX models (``onnx.ModelProto``)."""

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.errors import ConversionError, first_line
from edgeattn.tensors import Array, Specs


def copy_model(proto: Any) -> Any:
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy


def inferred_shapes(proto: Any) -> Any:
    """A copy in which inner values have the dtypes and shapes that can be inferred."""
    import onnx

    return onnx.shape_inference.infer_shapes(proto)


def written_model(write: Callable[[Path], Any]) -> Any:
    """The model that ``write`` stores at a temporary path."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write(path)
        return onnx.load(path)


def convert_opset(proto: Any, opset: int) -> Any:
    """The model in another operator set; :class:`ConversionError` if onnx cannot convert it."""
    from onnx import version_converter

    try:
        return version_converter.convert_version(proto, opset)
    except Exception as error:  # the converter raises errors of many classes
        raise ConversionError(
            f"The model cannot be written in ONNX operator set {opset}: {first_line(error)}",
            hint="Omit --opset, or choose a lower one.",
        ) from error


def consumers(proto: Any) -> dict[str, list[tuple[Any, int]]]:
    """The nodes of the main graph that read each value, with the position among their inputs."""
    users: dict[str, list[tuple[Any, int]]] = {}
    for node in proto.graph.node:
        for position, name in enumerate(node.input):
            users.setdefault(name, []).append((node, position))
    return users


def float_constants(proto: Any, min_elements: int) -> dict[str, Array]:
    """The float32 initializers with at least ``min_elements`` values, by name."""
    from onnx import TensorProto, numpy_helper

    return {
        item.name: numpy_helper.to_array(item)
        for item in proto.graph.initializer
        if item.data_type == TensorProto.FLOAT and int(np.prod(item.dims)) >= min_elements
    }


def remove_constant(proto: Any, name: str) -> None:
    item = next(item for item in proto.graph.initializer if item.name == name)
    proto.graph.initializer.remove(item)


def add_constant(proto: Any, name: str, value: Array) -> None:
    from onnx import numpy_helper

    proto.graph.initializer.append(numpy_helper.from_array(value, name))


def all_nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a graph and of the bodies of its nodes."""
    for node in graph.node:
        yield node
        for body in bodies(node):
            yield from all_nodes(body)


def bodies(node: Any) -> Iterator[Any]:
    """The graphs that a loop or a condition runs."""
    for attribute in node.attribute:
        yield from (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)


def merge_constants(proto: Any, kind: str) -> None:
    """Store equal constants that nodes of this type read once, in place."""
    items = {item.name: item for item in proto.graph.initializer}
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    for node in proto.graph.node:
        for position, name in enumerate(node.input if node.op_type == kind else ()):
            if name in items:
                item = items[name]
                key = (item.data_type, tuple(item.dims), item.raw_data or item.SerializeToString())
                node.input[position] = first.setdefault(key, name)
    used = {name for node in proto.graph.node for name in node.input}
    for name in set(items) - set(first.values()):
        if name not in used:
            proto.graph.initializer.remove(items[name])


def fix_batch_size(values: Iterable[Any], specs: Specs) -> Specs:
    """Set the batch size of a graph's inputs or outputs to 1, in place; returns their specs."""
    by_name = {value.name: value for value in values}
    fixed = []
    for spec in specs:
        if spec.shape and spec.shape[0] is None:
            by_name[spec.name].type.tensor_type.shape.dim[0].dim_value = 1
            spec = replace(spec, shape=(1, *spec.shape[1:]))
        fixed.append(spec)
    return tuple(fixed)


def free_dimensions(proto: Any, axes: Mapping[str, Sequence[int]]) -> None:
    """Let the ``axes`` of inputs and outputs, by name, have any length, in place.

    Each has a name of its own: two sequences of a call may differ in length.
    """
    if not axes:
        return
    for value in (*proto.graph.input, *proto.graph.output):
        for axis in axes.get(value.name, ()):
            value.type.tensor_type.shape.dim[axis].dim_param = f"{value.name}_{axis}"
    # Inner shapes may be those of the fixed length.
    del proto.graph.value_info[:]


def insert_nodes(proto: Any, position: int, nodes: Sequence[Any]) -> None:
    """Insert ``nodes``, in their order, before the node at ``position``."""
    for node in reversed(nodes):
        proto.graph.node.insert(position, node)


def set_outputs(proto: Any, names: Collection[str]) -> None:
    """Keep only the outputs with these names, in place."""
    outputs = [value for value in proto.graph.output if value.name in names]
    del proto.graph.output[:]
    proto.graph.output.extend(outputs)


def name_nodes(proto: Any) -> list[str]:
    """Give every node a unique name, in place: onnxruntime's quantizers identify nodes by name."""
    for k, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{k}"
    return [node.name for node in proto.graph.node]


def shorten_names(proto: Any) -> None:
    """Shorten the names of inner values, in place: quantizers' names take a fair share of a file.

    A model with loops is left unchanged, because a loop's graph refers to outer values by name.
    """
    graph = proto.graph
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return
    fixed = {value.name for value in (*graph.input, *graph.output)}
    short: dict[str, str] = {}

    def shortened(name: str) -> str:
        if not name or name in fixed:
            return name
        return short.setdefault(name, f"_{len(short):x}")

    for node in graph.node:
        node.name, node.doc_string = "", ""
        node.input[:] = [shortened(name) for name in node.input]
        node.output[:] = [shortened(name) for name in node.output]
    for item in graph.initializer:
        item.name = shortened(item.name)
    # onnxruntime infers what these describe.
    del graph.value_info[:]
