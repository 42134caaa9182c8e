"""``custom_op_handlers`` for tf2onnx whose axes ONNX counts in another way than TensorFlow."""

from typing import Any

import numpy as np

from edgeattn.errors import ConversionError

# TensorProto.DataType
_INT64 = 7


def handlers() -> dict[str, Any]:
    """Those of gathers, reversed sequences and transposes."""
    return {
        "GatherV2": (_gather, []),
        "ReverseSequence": (_reverse_sequence, []),
        "Transpose": (_transpose, []),
    }


def _gather(ctx: Any, node: Any, name: str, args: Any) -> None:
    """A gather whose axis and number of batch axes are counted from the front.

    TensorFlow counts a negative ``axis`` from the end of the data, and negative ``batch_dims`` from
    the end of the indices. tf2onnx takes both as they are, with results of other axes.
    """
    from tf2onnx.onnx_opset.tensor import GatherV2
    from tf2onnx.utils import make_name

    batch_axes, axis = node.get_attr_value("batch_dims", 0), node.inputs[2]
    if batch_axes < 0:
        batch_axes += _rank(ctx, node, 1)
        node.set_attr("batch_dims", batch_axes)
    position = int(axis.get_tensor_value()) if axis.is_const() else 0
    if batch_axes and position < 0:
        value = np.array(position + _rank(ctx, node, 0), np.int64)
        constant = ctx.make_const(make_name(f"{name}/axis"), value).output[0]
        ctx.replace_input(node, node.input[2], constant, 2)
    GatherV2.version_12(ctx, node)


def _reverse_sequence(ctx: Any, node: Any, name: str, args: Any) -> None:
    """A reversal of the first two axes, the only ones that ONNX reverses, between transposes."""
    from tf2onnx.onnx_opset.tensor import ReverseSequence

    axes = [node.get_attr_value("batch_dim", 0), node.get_attr_value("seq_dim")]
    if set(axes) == {0, 1}:
        ReverseSequence.version_10(ctx, node)
        return
    order = axes + [axis for axis in range(_rank(ctx, node, 0)) if axis not in axes]
    x, output, dtype = node.input[0], node.output[0], ctx.get_dtype(node.output[0])
    shape = ctx.get_shape(x)
    lengths = ctx.make_node("Cast", [node.input[1]], attr={"to": _INT64}).output[0]
    ctx.remove_node(node.name)
    moved = ctx.make_node("Transpose", [x], attr={"perm": order}, dtypes=[dtype]).output[0]
    result = ctx.make_node(
        "ReverseSequence",
        [moved, lengths],
        attr={"batch_axis": 0, "time_axis": 1},
        shapes=[[shape[axis] for axis in order]],
        dtypes=[dtype],
    ).output[0]
    ctx.make_node(
        "Transpose",
        [result],
        attr={"perm": np.argsort(order).tolist()},
        outputs=[output],
        shapes=[shape],
        dtypes=[dtype],
    )


def _transpose(ctx: Any, node: Any, name: str, args: Any) -> None:
    """A transpose whose axes are counted from the front; ONNX has no negative ones."""
    from tf2onnx.onnx_opset.tensor import Transpose

    Transpose.version_1(ctx, node)
    order = node.get_attr_value("perm", [])
    if any(axis < 0 for axis in order):
        node.set_attr("perm", [axis % len(order) for axis in order])


def _rank(ctx: Any, node: Any, position: int) -> int:
    rank = ctx.get_rank(node.input[position])
    if rank is None:
        raise ConversionError(
            f"{node.type} counts axes of a tensor whose number of axes is unknown.",
            hint="Pass axis and batch_dims of at least 0.",
        )
    return int(rank)
