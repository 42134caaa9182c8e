"""Placeholders for layers, whose nodes tf2onnx cannot write.

While the model is traced, one operation represents the nodes of a layer; when tf2onnx reaches it,
the nodes replace it.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.constant_results import FOR_NODES


class NodeWriter:
    """Adds nodes and constants with unique names to a tf2onnx graph."""

    def __init__(self, ctx: Any, prefix: str) -> None:
        self._ctx = ctx
        self._prefix = prefix
        self._counter = itertools.count()

    def const(self, value: Array | list[int]) -> str:
        """Add a constant, a list as int64; returns its name."""
        array = np.asarray(value, np.int64) if isinstance(value, list) else value
        node = self._ctx.make_const(f"{self._prefix}/const_{next(self._counter)}", array)
        return str(node.output[0])

    def node(self, kind: str, *inputs: str, count: int = 1, **attributes: Any) -> Any:
        """Add a node with ``count`` outputs; returns the name of its output, or a list of names."""
        node = self._ctx.make_node(kind, list(inputs), attr=attributes, output_count=count)
        return node.output[0] if count == 1 else list(node.output)


# Writes nodes for inputs of these names, and returns the names of the outputs.
Author = Callable[[NodeWriter, list[str]], list[str]]


class Placeholders:
    """The placeholders of one model: :meth:`put` while it is traced, then :meth:`handlers`."""

    def __init__(self) -> None:
        self._authors: dict[str, Author] = {}
        self._counter = itertools.count()

    def put(self, author: Author, inputs: list[Any], shapes: list[tuple[Any, ...]]) -> list[Any]:
        """Add a placeholder for nodes that ``author`` will write; returns its float32 outputs."""
        import tensorflow as tf

        token = f"edgeattn/{next(self._counter)}"
        self._authors[token] = author
        results = getattr(tf.raw_ops, FOR_NODES)(
            input=inputs, token=token, Tout=[tf.float32] * len(shapes)
        )
        return [
            tf.ensure_shape(result, shape) for result, shape in zip(results, shapes, strict=True)
        ]

    def handlers(self) -> dict[str, Any]:
        return {FOR_NODES: (self._write, [])}

    def _write(self, ctx: Any, node: Any, name: str, args: Any) -> None:
        author = self._authors[node.get_attr_str("token")]
        inputs, outputs = list(node.input), list(node.output)
        shapes = [ctx.get_shape(item) for item in outputs]
        dtypes = [ctx.get_dtype(item) for item in outputs]
        ctx.remove_node(node.name)
        results = author(NodeWriter(ctx, node.name), inputs)
        for result, output, shape, dtype in zip(results, outputs, shapes, dtypes, strict=True):
            ctx.make_node("Identity", [result], outputs=[output], shapes=[shape], dtypes=[dtype])
