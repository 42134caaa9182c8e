"""TensorFlow operations that tf2onnx passes on although ONNX has no operator of their name."""

from __future__ import annotations

from typing import Any

import numpy as np


def handlers() -> dict[str, Any]:
    """tf2onnx's ``custom_op_handlers`` for them."""
    return {"Erfc": (_erfc, [])}


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
