"""``custom_op_handlers`` for tf2onnx that reduce updates of single elements.

An index may occur several times, as a word does in a text. TensorFlow then adds all its updates.
tf2onnx writes ScatterND for it. Without a reduction, as for ``tf.scatter_nd``, the last update
remains; with one, onnxruntime reduces in several threads, which lose updates of the same element
(issue 18048 of onnxruntime). Its ScatterElements has one thread.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError

# TensorProto.DataType
_INT64 = 7
# The first operator set whose ScatterElements has the reduction.
_SINCE = {"add": 16, "max": 18, "min": 18}
_REDUCTIONS = {
    "ScatterNd": "add",
    "TensorScatterAdd": "add",
    "TensorScatterMax": "max",
    "TensorScatterMin": "min",
    "TensorScatterSub": "add",
}


def handlers(opset: int) -> dict[str, tuple[Callable[..., None], list[Any]]]:
    """Those for operator set ``opset``."""
    return {
        name: (partial(_write, opset, reduction), []) for name, reduction in _REDUCTIONS.items()
    }


def _write(opset: int, reduction: str, ctx: Any, node: Any, name: str, args: Any) -> None:
    from tf2onnx.onnx_opset.tensor import ScatterND

    if node.type == "ScatterNd" and _are_distinct(node.inputs[0]):
        node.type = "ScatterND"
        ScatterND.version_11(ctx, node)
    elif opset < _SINCE[reduction]:
        raise UnsupportedModelError(
            f"ONNX has no operator for {node.type} before operator set {_SINCE[reduction]}.",
            hint=f"Pass --opset {_SINCE[reduction]}.",
        )
    else:
        _scatter(reduction, ctx, node, name)


def _are_distinct(indices: Any) -> bool:
    if not indices.is_const():
        return False
    places = indices.get_tensor_value(as_list=False)
    places = places.reshape(-1, places.shape[-1])
    return len(np.unique(places, axis=0)) == len(places)


def _scatter(reduction: str, ctx: Any, node: Any, name: str) -> None:
    """The operation on a matrix: the axes that are indexed are its rows, all others its columns."""
    from tf2onnx.utils import make_name

    def make(kind: str, *inputs: str, **attributes: Any) -> str:
        return str(ctx.make_node(kind, list(inputs), attr=attributes).output[0])

    def const(*values: int) -> str:
        array = np.array(values, np.int64)
        return str(ctx.make_const(make_name(f"{name}/const"), array).output[0])

    kind, inputs, output = node.type, list(node.input), node.output[0]
    shape, dtype = ctx.get_shape(output), ctx.get_dtype(output)
    zeros = kind == "ScatterNd"
    indices, updates, last = inputs if zeros else (inputs[1], inputs[2], inputs[0])
    axes = (ctx.get_shape(indices) or [-1])[-1]
    if axes < 1:
        raise UnsupportedModelError(
            f"ONNX has no operator for {kind} with an unknown number of indexed axes.",
            hint="Let the last axis of the indices have a fixed size.",
        )
    ctx.remove_node(node.name)
    sizes = make("Cast", last, to=_INT64) if zeros else make("Shape", last)
    rows = make("ReduceProd", make("Slice", sizes, const(0), const(axes)), keepdims=1)
    whole = make("ReduceProd", sizes, keepdims=1)
    # Without elements, the number of columns does not matter.
    columns = make("Div", whole, make("Max", rows, const(1)))
    matrix = make("Concat", rows, columns, axis=0)
    if zeros:
        value = ctx.make_const(make_name(f"{name}/zero"), _zero(dtype))
        data = make("Expand", value.output[0], matrix)
    else:
        data = make("Reshape", last, matrix)
    if kind == "TensorScatterSub":
        updates = make("Neg", updates)
    indices = make("Cast", indices, to=_INT64)
    row = make("Gather", indices, const(0), axis=-1)
    for axis in range(1, axes):
        size = make("Slice", sizes, const(axis), const(axis + 1))
        row = make("Add", make("Mul", row, size), make("Gather", indices, const(axis), axis=-1))
    row = make("Reshape", row, const(-1, 1))
    count = make("Slice", make("Shape", row), const(0), const(1))
    places = make("Concat", count, columns, axis=0)
    reduced = make(
        "ScatterElements",
        data,
        make("Expand", row, places),
        make("Reshape", updates, places),
        axis=0,
        reduction=reduction,
    )
    ctx.make_node("Reshape", [reduced, sizes], outputs=[output], shapes=[shape], dtypes=[dtype])


def _zero(dtype: int) -> np.ndarray[Any, Any]:
    from onnx import helper

    return np.zeros((1, 1), helper.tensor_dtype_to_np_dtype(dtype))
