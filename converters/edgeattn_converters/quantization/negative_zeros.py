"""Zeros with a sign, which ``keras.ops.argmax`` and ``argmin`` of TensorFlow tell apart.

They replace -0.0 by the negative number nearest to zero, and find it by the sign of its reciprocal.
Integers have one zero, and no such number: without the selection, the result is the same.
"""

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.activation_rewrites import drop_unread

_TINY = -np.finfo(np.float32).tiny
_FINDING = (
    *("SELECT", "SELECT_V2", "LOGICAL_AND", "LOGICAL_OR", "EQUAL", "LESS", "DIV"),
    *("MUL", "RESHAPE", "CAST"),
)


def without_negative_zeros(content: bytes) -> bytes:
    """The file without the selection of negative zeros."""
    file = TFLiteFile(content)
    graph = file.main
    replaced: dict[int, int] = {}
    for operator in graph.operators:
        operator.inputs = [replaced.get(int(i), int(i)) for i in operator.inputs]
        if file.kind(operator) in ("SELECT", "SELECT_V2"):
            _, chosen, others = operator.inputs
            if _is_tiny(file.constant(graph.tensors[chosen])):
                replaced[int(operator.outputs[0])] = others
    if not replaced or not replaced.keys().isdisjoint(map(int, graph.outputs)):
        return content
    graph.operators = drop_unread(file, list(graph.operators), _FINDING)
    return file.to_bytes()


def _is_tiny(value: Array | None) -> bool:
    return value is not None and value.dtype == np.float32 and bool((value == _TINY).all())
