"""Matrices changed in their last digits, to find those that are singular to rounding.

The inverse of such a matrix, its logarithmic determinant, or Q of its factors is an arbitrary
result of the order of additions, also if no other digit of an input or weight gives another matrix:
a dense layer computes its bias for each step of zeros, which has rank 1. An algorithm that is
backward stable gives the exact result for a matrix that differs by a few roundings of its largest
element (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, chapters 9, 10 and 19).
Matrices that are the same for all inputs do not change: an extreme does not make these singular.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn.tensors import Tensors
from edgeattn_converters.graphs.operation_creation import (
    Creation,
    LaterChanges,
    created_by,
    is_copy,
)
from edgeattn_converters.reference.keras_outputs import KerasOutputs, by_row_on_failure
from edgeattn_converters.reference.traced_values import changed_function
from edgeattn_converters.tracing.trace import Interface

# Their first operand is a matrix. Others that TensorFlow has are composed of these.
_FACTORING = frozenset(
    {"Cholesky", "Eig", "LogMatrixDeterminant", "Lu", "MatrixDeterminant", "MatrixInverse"}
    | {"MatrixSolve", "MatrixSolveLs", "MatrixSquareRoot", "MatrixTriangularSolve", "Qr"}
    | {"SelfAdjointEigV2", "Svd"}
)


def uses_matrices(function: Any) -> bool:
    """Whether a concrete function inverts or factors matrices."""
    definition = function.graph.as_graph_def()
    parts = (definition.node, *(item.node_def for item in definition.library.function))
    return any(node.op in _FACTORING for nodes in parts for node in nodes)


def changed_matrices(
    model: Any, interface: Interface, *, attention: bool, alone: bool = False
) -> Callable[[Tensors, int, int], KerasOutputs | None]:
    """What Keras computes if matrices that it inverts or factors change.

    The function has the inputs, how many times the precision of its largest element each element
    of a matrix changes, and a seed of the signs. Rows that TensorFlow cannot compute are NaN, and
    the result is None if it computes none. If ``alone``, no sample is in a batch with others.
    """
    import tensorflow as tf

    change = tf.Variable([0, 0], dtype=tf.int32, trainable=False)  # the seed and the precisions
    changed = changed_function(
        model,
        interface,
        change,
        partial(_changed_operands, interface.half),
        attention=attention,
        alone=alone,
    )
    maps = {spec.name for spec in interface.attention}

    def run(inputs: Tensors, precisions: int, seed: int) -> KerasOutputs | None:
        def rows(selected: Tensors) -> KerasOutputs:
            values = changed(selected, (seed, precisions))
            outputs = {name: value for name, value in values.items() if name not in maps}
            return KerasOutputs(outputs, {k: values[k] for k in values if k in maps}, {})

        try:
            return by_row_on_failure(rows)(inputs)
        except (UnsupportedModelError, tf.errors.OpError):
            return None

    return run


@contextlib.contextmanager
def _changed_operands(half: Sequence[str], change: Any, later: LaterChanges) -> Iterator[None]:
    """``half`` are dtypes that are traced as they are, and computed in float32."""
    import tensorflow as tf

    dtypes = ("float32", *half)
    precision = float(np.finfo(np.float32).eps)
    count = 0

    def changed(matrix: Any, number: int) -> Any:
        seed, precisions = tf.unstack(change.read_value())
        signs = tf.random.stateless_uniform(
            tf.shape(matrix), tf.stack([seed, number]), 0, 2, dtype=tf.int32
        )
        step = precision * tf.cast(precisions * (2 * signs - 1), tf.float32)
        values = tf.cast(matrix, tf.float32)
        largest = tf.reduce_max(tf.abs(values), axis=(-2, -1), keepdims=True)
        return tf.cast(values + step * largest, matrix.dtype)

    def creation(
        create: Creation, graph: Any, kind: str, inputs: Any, *args: Any, **kwargs: Any
    ) -> Any:
        nonlocal count
        if kind in _FACTORING and not is_copy(kwargs):
            matrix, *others = inputs
            if matrix.dtype.name in dtypes and _depends_on_inputs(matrix):
                count += 1
                number = count
                operation = tf.identity(matrix).op
                same = later.add(operation, lambda: changed(matrix, number))
                inputs = [same.outputs[0], *others]
        return create(graph, kind, inputs, *args, **kwargs)

    with created_by(creation):
        yield


def _depends_on_inputs(tensor: Any) -> bool:
    """Whether a tensor is computed from inputs of the model, not only from its variables.

    That is assumed in the functions of loops and conditions.
    """
    from tensorflow.python.framework.func_graph import FuncGraph

    if isinstance(tensor.graph.outer_graph, FuncGraph):
        return True
    captured = {id(item.op) for item in tensor.graph.internal_captures}
    visited: set[int] = set()
    waiting = [tensor.op]
    while waiting:
        operation = waiting.pop()
        if id(operation) in visited:
            continue
        visited.add(id(operation))
        if operation.type == "Placeholder" and id(operation) not in captured:
            return True
        waiting.extend(item.op for item in operation.inputs)
    return False
