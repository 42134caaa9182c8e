"""How far the outputs of a loaded model differ from those of the same model elsewhere.

Equal infinities are equal. Values that are NaN in both are left out: they verify nothing, so an
output without other values was not compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.printable import enumerated
from edgeattn.tensors import Array

# Relative to the largest value; different kernels of the same operation differ by less.
TOLERANCE = 1e-4
# Rounding that a deep model amplifies stays below this; another activation, such as hard_sigmoid of
# Keras 3 in place of that of Keras 2, may change outputs by less than 1 %.
WRONG = 1e-3

_Outputs = Sequence[Array]


@dataclass(frozen=True)
class Difference:
    """The difference of outputs on groups of samples.

    Attributes:
        error: The largest error relative to the largest expected value of its output and group;
            infinite if shapes differ, or if a value is NaN or infinite on one side only.
        unknown: Positions of the outputs of which nothing, or not every value, is known, because it
            is NaN for all samples in both.
    """

    error: float
    unknown: tuple[int, ...]


def difference(actual: Sequence[_Outputs], expected: Sequence[_Outputs]) -> Difference:
    """Return the difference of the outputs of each group."""
    if any(len(ours) != len(theirs) for ours, theirs in zip(actual, expected, strict=True)):
        return Difference(float("inf"), ())
    errors = [
        relative_error(*pair)
        for group in zip(actual, expected, strict=True)
        for pair in zip(*group, strict=True)
    ]
    return Difference(max(errors, default=0.0), unknown_outputs(expected))


def relative_error(actual: Array, expected: Array) -> float:
    """Return the largest error relative to the largest expected value.

    Values that are NaN, or the same infinity, in both are left out.
    """
    if actual.shape != expected.shape:
        return float("inf")
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    finite = np.isfinite(actual) & np.isfinite(expected)
    if not (finite | same).all():
        return float("inf")
    actual, expected = actual[finite], expected[finite]
    largest = max(float(np.abs(expected).max(initial=0.0)), 1e-6)
    return float(np.abs(actual - expected).max(initial=0.0)) / largest


def unknown_outputs(groups: Sequence[_Outputs]) -> tuple[int, ...]:
    """Return positions of outputs of which a value is NaN, or none finite, for all samples."""
    count = max(map(len, groups), default=0)
    return tuple(
        position
        for position in range(count)
        if not _is_known([outputs[position] for outputs in groups if position < len(outputs)])
    )


def _is_known(arrays: Sequence[Array]) -> bool:
    """Whether each value of a sample is a number in some row of arrays of the same sizes."""
    known: dict[tuple[int, ...], Any] = {}
    is_finite = False
    for array in arrays:
        if not array.size:
            return True  # an empty output has only its shape
        numbers = ~np.isnan(array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1))
        sizes = array.shape[1:]
        known[sizes] = known.get(sizes, False) | numbers.any(axis=0)
        is_finite |= bool(np.isfinite(array).any())
    return is_finite and any(bool(np.all(value)) for value in known.values())


def unknown_note(model: Any, unknown: Sequence[int], where: str) -> str:
    """Return a note on outputs of a model that the comparison with ``where`` does not verify."""
    names = [tensor._keras_history.operation.name for tensor in model.outputs]
    listed = enumerated([repr(names[k]) if k < len(names) else f"number {k + 1}" for k in unknown])
    several = len(unknown) > 1
    return (
        f"The output{'s' if several else ''} {listed} {'were' if several else 'was'} not compared "
        f"with {where}: there are values that are NaN or infinite for all samples."
    )
