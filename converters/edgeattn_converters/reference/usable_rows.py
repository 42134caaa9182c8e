"""The rows of a reference on which Keras' own outputs are finite and numerically stable.

Far beyond the samples, a recurrence with relu grows exponentially, a softmax of scores in the
hundreds switches abruptly, and a normalization of one feature divides zero by zero. There, a change
in the last digit of an input changes the outputs of Keras itself by more than the limit, and so can
returning attention maps, for which Keras computes in another order. Tokens have no last digit: of a
model that takes them, the weights are changed as well. Neither have zeros: if tiny values in place
of them move the outputs, averages are changed instead, because ``log(x + 1e-7)`` of zeros is
accurate, but not a normalization of these equal numbers. Averages of equal numbers are changed for
all extremes, because clipping also makes equal numbers of high ones. Matrices are changed where
they are inverted or factored, because those of an extreme can be singular whatever its last digits
are.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn.tensors import Array, Tensors
from edgeattn_converters.reference.edge_cases import InputProperties
from edgeattn_converters.reference.keras_outputs import KerasOutputs
from edgeattn_converters.reference.unmoved_rows import (
    EXTREME_PRECISIONS,
    NO_CHANGES,
    Changes,
    Step,
    scale,
    unmoved_by_equal_numbers,
    unmoved_by_inputs,
    unmoved_by_matrices,
    unmoved_by_weights,
    unmoved_zeros,
)

_Run = Callable[[Tensors], KerasOutputs]


@dataclass(frozen=True)
class UsableRows:
    """Indices of the rows of a reference, in its order.

    Attributes:
        samples: Samples.
        ordinary: Edge cases that could be samples.
        float16: Extremes that are stable enough for a float16 artifact.
        others: The other extremes.
        not_finite: The number of rows left out because Keras' outputs or maps are not finite.
        unstable: The number of rows left out because Keras' outputs are unstable.
        stable: False if no synthetic sample is stable; then all that are finite are used.
        unstable_ordinary: The number of ordinary edge cases among ``unstable``.
        unstable_averages: The number of extremes among ``unstable`` because of the rounding of
            averages.
        unstable_matrices: The number of edge cases among ``unstable`` because of the rounding of
            matrices.
    """

    samples: Array
    ordinary: Array
    float16: Array
    others: Array
    not_finite: int
    unstable: int
    stable: bool = True
    unstable_ordinary: int = 0
    unstable_averages: int = 0
    unstable_matrices: int = 0

    @property
    def all(self) -> Array:
        return np.concatenate([self.samples, self.ordinary, self.float16, self.others])

    def to_json(self) -> dict[str, Any]:
        """The counts of the manifest."""
        return {
            "samples": len(self.samples),
            "edge_cases": len(self.ordinary) + len(self.float16) + len(self.others),
            "ordinary_edge_cases": len(self.ordinary),
            "float16_edge_cases": len(self.float16),
            "left_out": self.unstable,
            "not_finite": self.not_finite,
            "stable": self.stable,
        }


def usable_rows(
    run: _Run,
    inputs: Tensors,
    values: KerasOutputs,
    counts: tuple[int, int],
    properties: InputProperties,
    *,
    real: bool,
    changes: Changes = NO_CHANGES,
) -> UsableRows:
    """Select rows of ``inputs``, for which Keras computes ``values``.

    Args:
        run: Computes the outputs of Keras.
        inputs: Samples, ordinary edge cases, and extremes.
        values: What Keras computes from ``inputs``.
        counts: The numbers of samples, and of samples and ordinary edge cases.
        properties: Tokens and padding, which are not changed: a token is another word if it is
            slightly smaller, and a step that is almost padding is not masked.
        real: Whether the samples are real. These are used even if Keras is unstable.
        changes: What else is changed to find unstable rows.

    Raises :class:`UnsupportedModelError` if the outputs are finite for no sample.
    """
    count, ordinary = counts
    finite = values.finite
    _check_any_finite(values, finite[:count], real=real)
    position = np.arange(len(finite))
    usable = finite.copy()
    exact = {name: properties.is_exact(name, array) for name, array in inputs.items()}
    synthetic = np.flatnonzero(
        finite & (position >= (count if real else 0)) & (position < ordinary)
    )
    extremes = np.flatnonzero(finite & (position >= ordinary))
    scales = {name: scale(array[:count]) for name, array in inputs.items()}
    unstable_averages = unstable_matrices = 0
    for rows, step in (
        (synthetic, Step(exact)),
        (extremes, Step(exact, precisions=EXTREME_PRECISIONS)),
    ):
        usable[rows] = unmoved_by_inputs(run, inputs, values, rows, step)
        if changes.weights is not None and any(array.all() for array in exact.values()):
            usable[rows] &= unmoved_by_weights(run, changes.weights, inputs, values, rows, step)
        if changes.averages is not None:
            others = rows[usable[rows]]
            tiny = replace(step, scales=scales)
            usable[others] = unmoved_zeros(run, changes.averages, inputs, values, others, tiny)
            far = others[usable[others] & (others >= ordinary)]
            usable[far] = unmoved_by_equal_numbers(changes.averages, inputs, values, far, step)
            unstable_averages += int((~usable[others] & (others >= ordinary)).sum())
        if changes.matrices is not None:
            others = rows[usable[rows]]
            usable[others] = unmoved_by_matrices(changes.matrices, inputs, values, others, step)
            unstable_matrices += int((~usable[others] & (others >= count)).sum())
    for changed in changes.activations if len(extremes) else ():
        after = changed({name: array[extremes] for name, array in inputs.items()})
        usable[extremes[list(after.failed)]] = False
        for name, value in after.outputs.items():
            before = values.outputs[name][extremes]
            usable[extremes] &= Step(exact).within(before, value, is_map=False)
    made_up = position >= (count if real else 0)
    # If results have no defined order, more than rounding differs: check_unchanged reports it.
    with_maps_only = {} if values.unsorted else values.with_maps
    for name, with_maps in with_maps_only.items():
        same = Step(exact).within(values.outputs[name], with_maps, is_map=False)
        usable &= same | ~made_up
    extremes = extremes[usable[extremes]]
    stable = bool(usable[:count].any())
    if not stable:
        usable[:count] = finite[:count]
    robust = unmoved_by_inputs(run, inputs, values, extremes, Step(exact, float16=True))
    rows = np.flatnonzero(usable)
    return UsableRows(
        rows[rows < count],
        rows[(rows >= count) & (rows < ordinary)],
        extremes[robust],
        extremes[~robust],
        int((~finite).sum()),
        int((finite & ~usable).sum()),
        stable,
        int((finite & ~usable)[count:ordinary].sum()),
        unstable_averages,
        unstable_matrices,
    )


def _check_any_finite(values: KerasOutputs, finite: Array, *, real: bool) -> None:
    if finite.any():
        return
    if values.failure is not None:
        raise values.failure
    name = next(name for name, value in values.all.items() if not np.isfinite(value).all())
    kind = "" if real else "synthetic "
    pass_samples = "" if real else ", or pass real samples: --samples FILE"
    raise UnsupportedModelError(
        f"Output {name!r} of the Keras model is NaN or infinite for every {kind}sample.",
        hint=f"Check the weights for values that are not finite{pass_samples}.",
    )
