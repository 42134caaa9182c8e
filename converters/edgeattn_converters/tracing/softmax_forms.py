"""The ways in which a softmax is written in a traced graph.

Besides the operation of that name, these are ``exp(x)`` divided by its sum or multiplied by the
reciprocal of it, and the exponential of a log softmax or of ``x - logsumexp(x)``. Where a sum of
data that ``exp(x)`` weights is divided by the sum of ``exp(x)``, no value is the softmax, and it is
added to the graph. The functions of :mod:`.weight_functions` may take the place of ``exp``.
"""

from typing import Any, NamedTuple

import numpy as np

from edgeattn_converters.graphs.data_sources import is_data
from edgeattn_converters.tracing.axes import Axes, axis_behind, static_value
from edgeattn_converters.tracing.weight_functions import is_positive_score, thresholded_axes

# Operations allowed between exp(x), its sum, and the division by it.
_NEUTRAL = ("Identity", "Cast", "Reshape", "ExpandDims", "Squeeze", "StopGradient", "BroadcastTo")
_SUMS = ("AddV2", "Add")
_GUARDS = (*_SUMS, "Maximum")
_QUOTIENTS = ("RealDiv", "Div", "DivNoNan")
_MATRIX_PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum")
# The largest number of operations between a quotient and the sum.
_MAX_STEPS = 8


class Normalized(NamedTuple):
    """A softmax: its ``weights``, the axes that they are normalized over, and the value, of their
    shape, that multiplies data: the weights, or what is normalized after a weighted sum.

    ``axes`` begins with the last normalization. Others precede it in the logarithm of the weights.
    """

    weights: Any
    axes: tuple[Axes, ...]
    multiplying: Any


def softmax_of(operation: Any, constants: bool = False) -> Normalized | None:
    """The softmax that ``operation`` computes, or divides by the sum of, and its axes, if any.

    Adds the weights of the latter to the graph. With ``constants``, similarities may be those of
    constants that have an axis of samples.
    """
    if axes := normalizations_of(operation, constants):
        return Normalized(operation.outputs[0], axes, operation.outputs[0])
    if operation.type not in _QUOTIENTS or not _is_array(operation):
        return None
    return _normalized_afterwards(*operation.inputs, constants=constants)


def normalizations_of(operation: Any, constants: bool = False) -> tuple[Axes, ...]:
    """The axes of the softmax that ``operation`` computes, from the last normalization; empty if
    it computes none. ``constants`` is that of :func:`softmax_of`."""
    if not _is_array(operation):
        return ()
    if operation.type == "Exp":
        return _normalizations_of_logarithm(operation.inputs[0])
    axes: Axes | None = None
    if operation.type == "Softmax":
        axes = (int(operation.outputs[0].shape.rank) - 1,)
    elif operation.type in _QUOTIENTS:
        axes = _normalized_axes(*operation.inputs, constants=constants)
    elif operation.type == "Mul":
        axes = _axes_of_product(*operation.inputs, constants=constants)
    else:
        axes = thresholded_axes(operation)
    return (axes,) if axes else ()


def _is_array(operation: Any) -> bool:
    """Whether the result has an axis besides that of the batch."""
    result = operation.outputs[0] if operation.outputs else None
    return result is not None and result.shape.rank is not None and result.shape.rank > 1


def divided_by_own_sum(numerator: Any, denominator: Any) -> Axes | None:
    """The axes of ``x / sum(x, axes)``; a constant may be added to the sum."""
    total = sum_behind(denominator)
    if total is None:
        return None
    summed = (total.inputs[0], _source(total.inputs[0], magnitudes=True))
    return _axes_of(total) if any(_are_equal(item, numerator) for item in summed) else None


def _normalized_axes(numerator: Any, denominator: Any, *, constants: bool) -> Axes | None:
    """The axes of ``exp(x) / sum(exp(x), axes)``; a constant may be added to the sum."""
    is_quotient = _are_weights(numerator, constants)
    return divided_by_own_sum(numerator, denominator) if is_quotient else None


def _normalized_afterwards(
    numerator: Any, denominator: Any, *, constants: bool
) -> Normalized | None:
    """The softmax and its axis in ``sum(exp(x) * data, axis) / sum(exp(x), axis)``.

    The numerator may be a product of matrices too.
    """
    import tensorflow as tf

    total = sum_behind(denominator)
    axes = None if total is None else _axes_of(total)
    if not axes or not _are_weights(total.inputs[0], constants):
        return None
    weighted = _behind(numerator).op
    if weighted.type == "Sum":
        weighted = _source(weighted.inputs[0]).op
        if weighted.type != "Mul":
            return None
    elif weighted.type not in _MATRIX_PRODUCTS:
        return None
    powers = total.inputs[0]
    factors = [_moved(item) for item in weighted.inputs]
    multiplying = next((item for item in factors if _are_equal(item, powers)), None)
    if multiplying is None or multiplying.shape.rank != powers.shape.rank:
        return None
    weights = tf.math.divide(powers, tf.reduce_sum(powers, axes, keepdims=True))
    return Normalized(weights, (axes,), multiplying)


def _moved(tensor: Any) -> Any:
    """The value before operations that move its elements, or change only its shape or type."""
    while tensor.op.type in (*_NEUTRAL, "Transpose"):
        tensor = tensor.op.inputs[0]
    return tensor


def _axes_of_product(*factors: Any, constants: bool) -> Axes | None:
    """The axes of ``exp(x) * (1 / sum(exp(x), axes))``, with the factors in any order."""
    for k, numerator in enumerate(factors):
        denominator = inverse(factors[1 - k])
        if denominator is not None:
            axes = _normalized_axes(numerator, denominator, constants=constants)
            if axes is not None:
                return axes
    return None


def inverse(tensor: Any) -> Any:
    """What ``tensor`` is the reciprocal of; None if it is no reciprocal."""
    import tensorflow as tf

    for _ in range(_MAX_STEPS):
        operation = tensor.op
        if operation.type in ("Reciprocal", "Inv"):
            return operation.inputs[0]
        if operation.type == "Pow":
            return operation.inputs[0] if _is_all(operation.inputs[1], -1) else None
        if operation.type in _QUOTIENTS:
            return operation.inputs[1] if _is_all(operation.inputs[0], 1) else None
        if operation.type not in _NEUTRAL or tf.get_static_value(tensor) is not None:
            return None
        tensor = operation.inputs[0]
    return None


def _is_all(tensor: Any, number: int) -> bool:
    import tensorflow as tf

    value = tf.get_static_value(_behind(tensor))  # a lowering may have changed its shape
    return value is not None and value.size > 0 and bool((value == number).all())


def _normalizations_of_logarithm(tensor: Any) -> tuple[Axes, ...]:
    """The axes over which ``exp(tensor)`` is normalized, from the last normalization."""
    operation = _source(tensor).op
    last = int(tensor.shape.rank) - 1
    axes: Axes | None = None
    if operation.type == "LogSoftmax":
        axes, scores = (last,), operation.inputs[0]
    elif operation.type == "Transpose" and _source(operation.inputs[0]).op.type == "LogSoftmax":
        # TensorFlow computes a log softmax over the last axis, and moves another one there.
        moved = axis_behind(operation, operation.inputs[0], last)
        axes = None if moved is None else (moved,)
        before = _source(_source(operation.inputs[0]).op.inputs[0])
        scores = before.op.inputs[0] if before.op.type == "Transpose" else before
    elif operation.type == "Sub":
        scores, logarithm = operation.inputs
        axes = _axes_of_logarithm(scores, logarithm)
    if not axes:
        return ()
    if earlier := _normalizations_of_logarithm(scores):
        return (axes, *(other for other in earlier if other != axes))
    return (axes,)


def _axes_of_logarithm(scores: Any, logarithm: Any) -> Axes | None:
    """The axes of ``log(sum(exp(scores), axis))``; a shift of the scores may be taken out of it."""
    shift = None
    for _ in range(_MAX_STEPS):
        operation = logarithm.op
        if operation.type == "Log":
            break
        if operation.type in _SUMS and shift is None:
            terms = list(operation.inputs)
            logs = [k for k, term in enumerate(terms) if _behind(term).op.type == "Log"]
            if len(logs) != 1:
                return None
            logarithm, shift = terms[logs[0]], terms[1 - logs[0]]
        elif operation.type in _NEUTRAL:
            logarithm = operation.inputs[0]
        else:
            return None
    else:
        return None
    total = _behind(logarithm.op.inputs[0]).op
    if total.type != "Sum" or _source(total.inputs[0]).op.type != "Exp":
        return None
    exponent = _source(_source(total.inputs[0]).op.inputs[0])
    if shift is not None:
        if exponent.op.type != "Sub":
            return None
        if not _are_equal(_behind(exponent.op.inputs[1]), _behind(shift)):
            return None
        exponent = _source(exponent.op.inputs[0])
    return _axes_of(total) if _are_equal(exponent, scores) else None


def sum_behind(tensor: Any) -> Any:
    """The sum that a denominator consists of, besides constants that keep it from being zero."""
    import tensorflow as tf

    for _ in range(_MAX_STEPS):
        operation = tensor.op
        if operation.type == "Sum":
            return operation
        if operation.type in _NEUTRAL:
            tensor = operation.inputs[0]
        elif operation.type in _GUARDS:
            steps = [t for t in operation.inputs if tf.get_static_value(t) is None]
            if len(steps) != 1:
                return None
            tensor = steps[0]
        else:
            return None
    return None


def _axes_of(total: Any) -> Axes | None:
    """The axes of a sum, None if that of the batch is one of them."""
    axes = static_value(total.inputs[1])
    if axes is None or not axes.size:
        return None
    rank = int(total.inputs[0].shape.rank)
    positions = tuple(sorted(int(axis) % rank for axis in axes.reshape(-1)))
    return positions if positions[0] else None


def _source(tensor: Any, *, magnitudes: bool = False) -> Any:
    """The value before operations that do not change it; exponentials are their ``magnitudes``."""
    kinds = ("Identity", "Cast", "StopGradient", *(("Abs",) if magnitudes else ()))
    while tensor.op.type in kinds:
        tensor = tensor.op.inputs[0]
    return tensor


def _behind(tensor: Any) -> Any:
    """The value before operations that change only its shape or type."""
    while tensor.op.type in _NEUTRAL:
        tensor = tensor.op.inputs[0]
    return tensor


def _are_equal(first: Any, second: Any, steps: int = _MAX_STEPS) -> bool:
    """Whether two values are computed in the same way: ``exp(x) / sum(exp(x))`` has two of them."""
    import tensorflow as tf

    first, second = _source(first), _source(second)
    if first is second:
        return True
    one, other = first.op, second.op
    if one.type == "Const" and other.type == "Const":
        values = tf.get_static_value(first), tf.get_static_value(second)
        return values[0] is not None and np.array_equal(*values)
    if not steps or one.type != other.type or not one.inputs or one.op_def.is_stateful:
        return False
    same_attributes = one.node_def.attr == other.node_def.attr
    if not same_attributes or len(one.inputs) != len(other.inputs):
        return False
    if list(one.outputs).index(first) != list(other.outputs).index(second):
        return False
    return all(_are_equal(*pair, steps - 1) for pair in zip(one.inputs, other.inputs, strict=True))


def _are_weights(tensor: Any, constants: bool) -> bool:
    operation = _source(tensor).op
    if is_positive_score(operation.outputs[0]) or _are_similarities(operation, constants):
        return True
    # Or exp(x) * mask.
    return operation.type == "Mul" and any(
        is_positive_score(_source(item)) for item in operation.inputs
    )


def _are_similarities(operation: Any, constants: bool) -> bool:
    """Whether an operation is a product of two matrices of data, such as cosines, perhaps plus a
    constant. Those may be negative. With ``constants``, one for each sample is data, too."""
    import tensorflow as tf

    if operation.type in _SUMS:
        terms = [item for item in operation.inputs if tf.get_static_value(item) is None]
        return len(terms) == 1 and _are_similarities(_behind(terms[0]).op, constants)
    operands = list(operation.inputs)
    if operation.type not in _MATRIX_PRODUCTS or len(operands) != 2:
        return False
    count = operation.outputs[0].shape[0] if constants else None
    return all(is_data(item) or (count and _has_samples(item, count)) for item in operands)


def _has_samples(tensor: Any, count: int) -> bool:
    return bool(tensor.shape.rank and tensor.shape.rank > 2 and tensor.shape[0] == count)
