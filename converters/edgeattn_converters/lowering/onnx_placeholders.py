"""ONNX nodes of one's own choice where a layer stands.

While the model is traced a placeholder operation stands for them; when tf2onnx meets it, the nodes
take its place.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeattn.tensors import Array

# It takes any inputs, carries a text, and no optimizer looks into it.
OPERATION = "PyFuncStateless"


class NodeWriter:
    """tf2onnx's graph with names, constants and nodes in one call each."""

    def __init__(self, ctx: Any, prefix: str) -> None:
        self._ctx = ctx
        self._prefix = prefix
        self._counter = itertools.count()

    def const(self, value: Array | list[int]) -> str:
        array = np.asarray(value, np.int64) if isinstance(value, list) else value
        node = self._ctx.make_const(f"{self._prefix}/const_{next(self._counter)}", array)
        return str(node.output[0])

    def node(self, kind: str, *inputs: str, count: int = 1, **attributes: Any) -> Any:
        made = self._ctx.make_node(kind, list(inputs), attr=attributes, output_count=count)
        return made.output[0] if count == 1 else list(made.output)


# Writes the nodes, of the inputs' names, and gives the outputs' names.
Author = Callable[[NodeWriter, list[str]], list[str]]


class Placeholders:
    """Those of one model: put with :meth:`put` while it is traced, written by :meth:`handlers`."""

    def __init__(self) -> None:
        self._authors: dict[str, Author] = {}
        self._counter = itertools.count()

    def put(self, author: Author, inputs: list[Any], shapes: list[tuple[Any, ...]]) -> list[Any]:
        """The float32 outputs, of these shapes, of what ``author`` will write of ``inputs``."""
        import tensorflow as tf

        token = f"edgeattn/{next(self._counter)}"
        self._authors[token] = author
        results = tf.raw_ops.PyFuncStateless(
            input=inputs, token=token, Tout=[tf.float32] * len(shapes)
        )
        return [
            tf.ensure_shape(result, shape) for result, shape in zip(results, shapes, strict=True)
        ]

    def handlers(self) -> dict[str, Any]:
        """tf2onnx's ``custom_op_handlers``."""
        return {OPERATION: (self._write, [])}

    def _write(self, ctx: Any, node: Any, name: str, args: Any) -> None:
        author = self._authors[node.get_attr_str("token")]
        inputs, outputs = list(node.input), list(node.output)
        shapes = [ctx.get_shape(item) for item in outputs]
        dtypes = [ctx.get_dtype(item) for item in outputs]
        ctx.remove_node(node.name)
        results = author(NodeWriter(ctx, node.name), inputs)
        for result, output, shape, dtype in zip(results, outputs, shapes, dtypes, strict=True):
            ctx.make_node("Identity", [result], outputs=[output], shapes=[shape], dtypes=[dtype])
