"""TensorFlow operations without an ONNX operator of the same name."""

from typing import Any

import numpy as np

_BOOL = 9  # TensorProto.DataType


def handlers() -> dict[str, Any]:
    """The ``custom_op_handlers`` for tf2onnx."""
    return {"Erfc": (_erfc, []), "Expm1": (_expm1, []), "SelectV2": (_select, [])}


def _erfc(ctx: Any, node: Any, name: str, args: Any) -> None:
    """``erfc(x) = 1 - erf(x)``, which GELU uses."""
    (x,), target = _removed(ctx, node)
    one = ctx.make_const(f"{name}/one", np.array(1, np.float32))
    erf = ctx.make_node("Erf", [x])
    ctx.make_node("Sub", [one.output[0], erf.output[0]], **target)


def _expm1(ctx: Any, node: Any, name: str, args: Any) -> None:
    """``expm1(x) = exp(x) - 1``, which CELU uses, with an error of the rounding of 1."""
    (x,), target = _removed(ctx, node)
    one = ctx.make_const(f"{name}/one", np.array(1, np.float32))
    exp = ctx.make_node("Exp", [x])
    ctx.make_node("Sub", [exp.output[0], one.output[0]], **target)


def _select(ctx: Any, node: Any, name: str, args: Any) -> None:
    """One Where.

    tf2onnx multiplies by the mask and its complement, so that an unselected infinity becomes NaN.
    """
    (mask, yes, no), target = _removed(ctx, node)
    if target["dtypes"] != [_BOOL]:
        ctx.make_node("Where", [mask, yes, no], **target)
        return
    # onnxruntime has no Where of booleans.
    first = ctx.make_node("And", [mask, yes])
    second = ctx.make_node("And", [ctx.make_node("Not", [mask]).output[0], no])
    ctx.make_node("Or", [first.output[0], second.output[0]], **target)


def _removed(ctx: Any, node: Any) -> tuple[list[str], dict[str, Any]]:
    """Remove a node of one output: its inputs, and the arguments that recreate the output."""
    inputs, output = list(node.input), node.output[0]
    target = {
        "outputs": [output],
        "shapes": [ctx.get_shape(output)],
        "dtypes": [ctx.get_dtype(output)],
    }
    ctx.remove_node(node.name)
    return inputs, target
