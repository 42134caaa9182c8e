"""TensorFlow operations that tf2onnx passes on although ONNX has no operator of their name."""

from __future__ import annotations

from typing import Any

import numpy as np


def handlers() -> dict[str, Any]:
    """tf2onnx's ``custom_op_handlers`` for them."""
    return {"Erfc": (_erfc, []), "Expm1": (_expm1, []), "SelectV2": (_select, [])}


def _erfc(ctx: Any, node: Any, name: str, args: Any) -> None:
    """``erfc(x) = 1 - erf(x)``: GELU is written with it."""
    (x,), (output,) = list(node.input), list(node.output)
    shape, dtype = ctx.get_shape(output), ctx.get_dtype(output)
    ctx.remove_node(node.name)
    one = ctx.make_const(f"{name}/one", np.array(1, np.float32))
    erf = ctx.make_node("Erf", [x])
    ctx.make_node(
        "Sub", [one.output[0], erf.output[0]], outputs=[output], shapes=[shape], dtypes=[dtype]
    )


def _expm1(ctx: Any, node: Any, name: str, args: Any) -> None:
    """``expm1(x) = exp(x) - 1``: CELU is written with it. Off by a float's rounding of 1."""
    (x,), (output,) = list(node.input), list(node.output)
    shape, dtype = ctx.get_shape(output), ctx.get_dtype(output)
    ctx.remove_node(node.name)
    one = ctx.make_const(f"{name}/one", np.array(1, np.float32))
    exp = ctx.make_node("Exp", [x])
    ctx.make_node(
        "Sub", [exp.output[0], one.output[0]], outputs=[output], shapes=[shape], dtypes=[dtype]
    )


def _select(ctx: Any, node: Any, name: str, args: Any) -> None:
    """One Where. tf2onnx multiplies by the mask and its opposite, so that infinity not selected
    becomes NaN."""
    (mask, yes, no), (output,) = list(node.input), list(node.output)
    shape, dtype = ctx.get_shape(output), ctx.get_dtype(output)
    ctx.remove_node(node.name)
    named = {"outputs": [output], "shapes": [shape], "dtypes": [dtype]}
    if dtype != _BOOL:
        ctx.make_node("Where", [mask, yes, no], **named)
        return
    # onnxruntime selects no booleans.
    first = ctx.make_node("And", [mask, yes])
    second = ctx.make_node("And", [ctx.make_node("Not", [mask]).output[0], no])
    ctx.make_node("Or", [first.output[0], second.output[0]], **named)


# TensorProto.DataType
_BOOL = 9
