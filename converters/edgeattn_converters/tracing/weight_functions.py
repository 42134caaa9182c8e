"""Functions other than the exponential that turn scores into weights.

Weights that are not negative become those of a map when they are divided by their sum: sigmoids,
squared ReLUs, powers of two. Sparsemax (Martins and Astudillo 2016) and entmax (Peters et al. 2019)
subtract a threshold from the scores, which they find by sorting them, so that the positive rest
sums to 1.
"""

from typing import Any

from edgeattn_converters.graphs.data_sources import operations_behind
from edgeattn_converters.tracing.axes import Axes, static_value

_MOVES = ("Identity", "Cast", "Reshape", "ExpandDims", "Squeeze", "StopGradient", "Transpose")
# The results of these are not negative, whatever the operands are.
POSITIVE = ("Exp", "Sigmoid", "Softplus", "Relu", "Relu6", "Abs", "Square")
# Not negative if no operand is.
_SUMS = ("AddV2", "Add")
_OF_ALL = (*_SUMS, "Mul", "RealDiv", "Div", "DivNoNan", "Minimum", "Sqrt", "Pow")
# Not less than -1.
_FROM_MINUS_ONE = ("Elu", "Tanh")
_MAX_STEPS = 6


def is_positive_score(tensor: Any) -> bool:
    """Whether the operations that compute a tensor turn values of any sign into values that are
    not negative. Masks do not: they have no other values to begin with."""
    return _sign(tensor, _MAX_STEPS) == "positive score"


def _sign(tensor: Any, steps: int) -> str | None:
    """``positive score``, ``not negative`` for constants and masks, or None if unknown."""
    value = _constant(tensor)
    if value is not None:
        return "not negative" if (value >= 0).all() else None
    operation = tensor.op
    while operation.type in _MOVES:
        if operation.inputs[0].dtype.is_bool:
            return "not negative"
        operation = operation.inputs[0].op
    if operation.type in POSITIVE:
        return "positive score"
    if not steps:
        return None
    operands = list(operation.inputs)
    if operation.type == "ClipByValue":
        return "positive score" if _sign(operands[1], 0) else None
    if operation.type == "Mul" and operands[0] is operands[1]:
        return "positive score"
    if operation.type == "Pow" and _is_even(operands[1]):
        return "positive score"
    if operation.type == "Maximum":
        return "positive score" if any(_sign(item, steps - 1) for item in operands) else None
    if operation.type in _SUMS and _is_shifted(operands):
        return "positive score"
    if operation.type == "Pow" and (base := _constant(operands[0])) is not None:
        return "positive score" if (base > 0).all() else None
    if operation.type not in _OF_ALL:
        return None
    signs = [_sign(item, steps - 1) for item in operands]
    if not all(signs):
        return None
    return "positive score" if "positive score" in signs else "not negative"


def _is_shifted(terms: list[Any]) -> bool:
    """Whether 1 or more is added to a function that is not less than -1, as in ``elu(x) + 1``."""
    shifts = [_constant(term) for term in terms]
    return any(
        shift is not None and (shift >= 1).all() and _without_moves(term).op.type in _FROM_MINUS_ONE
        for shift, term in zip(shifts, reversed(terms), strict=True)
    )


def _is_even(exponent: Any) -> bool:
    value = _constant(exponent)
    return value is not None and bool((value % 2 == 0).all())


def _constant(tensor: Any) -> Any:
    """The value of a constant, whose shape a lowering may have changed; None if it is none."""
    return static_value(_without_moves(tensor))


def thresholded_axes(operation: Any) -> Axes | None:
    """The axis over which ``max(x - threshold(x), 0)`` sums to 1, if the threshold is found by
    sorting ``x`` and adding up.

    Entmax squares the result, which changes weights like any other power.
    """
    if operation.type not in ("Relu", "Maximum"):
        return None
    for tensor in operation.inputs:
        difference = _without_moves(tensor).op
        if difference.type != "Sub":
            continue
        scores, threshold = difference.inputs
        axis = _shared_axis(scores, threshold)
        if axis is None:
            continue
        # All of them, whose number differs with a free batch axis: both traces have the same maps.
        kinds = list(operations_behind(threshold, last=("TopKV2",)))
        added_up = any(item.type == "Cumsum" for item in kinds)
        if added_up and any(_sorts(item, scores, axis) for item in kinds):
            # A flattening of the axes ahead of the last leaves the number of axes behind it.
            behind = int(scores.shape.rank) - axis
            return (int(operation.outputs[0].shape.rank) - behind,)
    return None


def _shared_axis(scores: Any, threshold: Any) -> int | None:
    """The only axis along which there are several scores and one threshold."""
    rank = scores.shape.rank
    if rank is None or threshold.shape.rank != rank:
        return None
    shared = [k for k in range(1, rank) if threshold.shape[k] == 1 and scores.shape[k] != 1]
    return shared[0] if len(shared) == 1 else None


def _sorts(operation: Any, scores: Any, axis: int) -> bool:
    """Whether an operation sorts all ``scores`` along ``axis``, or their negatives.

    TensorFlow moves another axis than the last there.
    """
    if operation.type != "TopKV2" or operation.inputs[0].shape[-1] != scores.shape[axis]:
        return False
    tensor = _without_moves(operation.inputs[0])
    while tensor.op.type in ("Neg", "Transpose"):
        tensor = _without_moves(tensor.op.inputs[0])
    return tensor is _without_moves(scores)


def _without_moves(tensor: Any) -> Any:
    while tensor.op.type in ("Identity", "Cast", "StopGradient", "Reshape"):
        tensor = tensor.op.inputs[0]
    return tensor
