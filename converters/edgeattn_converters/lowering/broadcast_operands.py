"""Operations with a last axis of 1 that the TFLite converter would fuse into a product wrong.

The converter moves a constant of n values that a tensor is multiplied by, or that is added to it,
into the weights of a Dense layer that follows, also if the last axis of the tensor is 1 and only
the operation extends it to n. The product then has too few inputs, and the conversion fails. A
Dense layer of one feature is such an operation. With two axes, a constant is not moved.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from edgeattn_converters.graphs.operation_creation import Creation, created_by
from edgeattn_converters.lowering.constant_operands import is_constant

_ELEMENTWISE = frozenset({"Add", "AddV2", "Div", "Mul", "RealDiv", "Sub"})
_PRODUCTS = {"MatMul": ("transpose_a",), "BatchMatMulV2": ("adj_x",), "BatchMatMulV3": ("adj_x",)}


@contextlib.contextmanager
def separate_broadcasts() -> Iterator[None]:
    """Within the context, constants that extend a last axis of 1 have two axes."""
    import tensorflow as tf

    of_data: set[Any] = set()

    def creation(
        create: Creation, graph: Any, kind: str, inputs: Any, *args: Any, **kwargs: Any
    ) -> Any:
        attributes = kwargs.get("attrs")
        if kind in _ELEMENTWISE:
            inputs = _with_two_axes(inputs, of_data)
        elif attributes is not None and len(inputs) == 2 and is_constant(inputs[1], of_data):
            turned = [attributes[name].b for name in _PRODUCTS.get(kind, ())]
            if turned == [False] and _is_row(*inputs):
                return tf.multiply(inputs[0], tf.reshape(inputs[1], [1, -1])).op
            if kind == "Einsum":
                x, weights = inputs
                product = _outer_product(x, weights, attributes["equation"].s.decode())
                if product is not None:
                    return product.op
        return create(graph, kind, inputs, *args, **kwargs)

    with created_by(creation):
        yield


def _is_row(x: Any, weights: Any) -> bool:
    """Whether the weights of a product are those of one feature."""
    return bool(weights.shape.rank == 2 and x.shape.rank and x.shape[-1] == 1)


def _with_two_axes(inputs: Sequence[Any], of_data: set[Any]) -> list[Any]:
    import tensorflow as tf

    operands = list(inputs)
    for side in (0, 1):
        constant, other = operands[side], operands[1 - side]
        extends = (
            constant.shape.rank == 1
            and constant.shape[0] != 1
            and (other.shape.rank or 0) > 1
            and other.shape[-1] == 1
        )
        if extends and is_constant(constant, of_data):
            operands[side] = tf.reshape(constant, [1, -1])
    return operands


def _outer_product(x: Any, weights: Any, equation: str) -> Any:
    """An einsum over axes of 1 as a multiplication, None if it is none or has another form."""
    import tensorflow as tf

    operands, _, result = equation.partition("->")
    left, _, right = operands.partition(",")
    shared = set(left) & set(right)
    rows = [letter for letter in left if letter not in shared]
    columns = [letter for letter in right if letter not in shared]
    if "." in equation or not shared or result != "".join([*rows, *columns]):
        return None
    axes = [left.index(letter) for letter in shared]
    if any(x.shape[axis] != 1 for axis in axes) or not weights.shape.is_fully_defined():
        return None
    sizes = [weights.shape[right.index(letter)] for letter in columns]
    x = tf.squeeze(x, axes)
    for _ in columns:
        x = tf.expand_dims(x, -1)
    return tf.multiply(x, tf.reshape(weights, sizes if len(sizes) > 1 else [1, *sizes]))
