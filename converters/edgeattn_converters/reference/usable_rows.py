"""The rows of a reference on which Keras' own outputs are finite and numerically stable.

Far beyond the samples, a recurrence with relu grows exponentially, a softmax of scores in the
hundreds switches abruptly, and a normalization of one feature divides zero by zero. There, a change
in the last digit of an input changes the outputs of Keras itself by more than the limit, and so can
returning attention maps, for which Keras computes in another order. Tokens have no last digit: of a
model that takes them, the weights are changed as well. Neither have zeros: if tiny values in place
of them move the outputs, averages are changed instead, because ``log(x + 1e-7)`` of zeros is
accurate, but not a normalization of these equal numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn.metrics.limits import LIMITS
from edgeattn.tensors import Array, Tensors
from edgeattn_converters.reference.edge_cases import SEED, InputProperties
from edgeattn_converters.reference.keras_outputs import KerasOutputs

# How often inputs are changed in their last digit, and how far the outputs may move: half of the
# tolerance of a float32 artifact.
PERTURBATIONS = 4
# Weights are more than the values of a row, so that fewer changes of them are needed.
WEIGHT_PERTURBATIONS = 2
# Outputs of perturbed inputs are computed together if they have at most this many bytes.
TOGETHER_BYTES = 64 * 2**20
# Extremes are changed by this many times the precision of their type: an artifact rounds after
# every operation, which adds up to more than the rounding of its inputs.
EXTREME_PRECISIONS = 4
ATOL, RTOL = 0.5e-5, 0.5e-4
# The largest relative rounding error of a float16 number, as a change of float32 inputs.
FLOAT16_ROUNDING = 2.0**-11

_Run = Callable[[Tensors], KerasOutputs]
_Rounded = Callable[[int, int], AbstractContextManager[None]]
_Averaged = Callable[[Tensors, float], Tensors]


@dataclass(frozen=True)
class Changes:
    """Functions that compute what Keras does after a slight change; None if they are not needed.

    Attributes:
        activations: Each computes the outputs with slightly different activations; extremes on
            which these differ are left out.
        weights: A context with other weights, given how many times their precision they differ,
            and a seed.
        averages: Computes outputs and maps with averages that are larger by a share of themselves.
    """

    activations: Sequence[_Run] = ()
    weights: _Rounded | None = None
    averages: _Averaged | None = None


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
        unstable_zeros: The number of extremes among ``unstable`` because of their zeros.
    """

    samples: Array
    ordinary: Array
    float16: Array
    others: Array
    not_finite: int
    unstable: int
    stable: bool = True
    unstable_ordinary: int = 0
    unstable_zeros: int = 0

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
    changes: Changes = Changes(),
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
    scales = {name: _scale(array[:count]) for name, array in inputs.items()}
    unstable_zeros = 0
    for rows, step in (
        (synthetic, _Step(exact)),
        (extremes, _Step(exact, precisions=EXTREME_PRECISIONS)),
    ):
        usable[rows] = _unmoved(run, inputs, values, rows, step)
        if changes.weights is not None and any(array.all() for array in exact.values()):
            usable[rows] &= _unmoved_by_weights(run, changes.weights, inputs, values, rows, step)
        if changes.averages is not None:
            others = rows[usable[rows]]
            tiny = replace(step, scales=scales)
            usable[others] = _unmoved_zeros(run, changes.averages, inputs, values, others, tiny)
            unstable_zeros += int((~usable[others] & (others >= ordinary)).sum())
    for changed in changes.activations if len(extremes) else ():
        after = changed({name: array[extremes] for name, array in inputs.items()})
        usable[extremes[list(after.failed)]] = False
        for name, value in after.outputs.items():
            before = values.outputs[name][extremes]
            usable[extremes] &= _Step(exact).within(before, value, is_map=False)
    made_up = position >= (count if real else 0)
    # If results have no defined order, more than rounding differs: check_unchanged reports it.
    with_maps_only = {} if values.unsorted else values.with_maps
    for name, with_maps in with_maps_only.items():
        same = _Step(exact).within(values.outputs[name], with_maps, is_map=False)
        usable &= same | ~made_up
    extremes = extremes[usable[extremes]]
    stable = bool(usable[:count].any())
    if not stable:
        usable[:count] = finite[:count]
    robust = _unmoved(run, inputs, values, extremes, _Step(exact, float16=True))
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
        unstable_zeros,
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


@dataclass(frozen=True)
class _Step:
    """A relative change of inputs, and how far outputs may move: half of the limit of a scheme.

    ``exact`` says which values of each input do not change; ``precisions`` is the change of the
    others in float32, as a multiple of its precision. With ``scales`` of inputs, only zeros change,
    by that multiple of the scale.
    """

    exact: Tensors
    precisions: int = 1
    float16: bool = False
    scales: Mapping[str, float] | None = None

    def changed(
        self, name: str, values: Array, rows: Array, generator: np.random.Generator
    ) -> Array:
        """Other values of ``rows`` of the input ``name``, whose values are ``values``."""
        values = values[rows]
        if values.dtype.kind != "f":
            return values
        step = FLOAT16_ROUNDING if self.float16 else self.precisions * np.finfo(values.dtype).eps
        signs = generator.choice((-1, 1), values.shape)
        if self.scales is not None:
            other = (step * self.scales[name] * signs).astype(values.dtype)
            return np.where((values == 0) & ~self.exact[name][rows], other, values)
        steps = 1 + step * signs
        return np.where(self.exact[name][rows], values, (values * steps).astype(values.dtype))

    def within(self, before: Array, after: Array, *, is_map: bool) -> Array:
        """Which rows hardly move."""
        before, after = before.astype(np.float64), after.astype(np.float64)
        with np.errstate(invalid="ignore"):
            same = (before == after) | (np.isnan(before) & np.isnan(after))
            moved = np.where(same, 0.0, np.abs(after - before)).reshape(len(before), -1)
        size = np.abs(before).reshape(moved.shape)
        limits = LIMITS["float16"]
        # Maps have an absolute limit only.
        allowed = ATOL + (0.0 if is_map else RTOL) * size
        if self.float16 and is_map:
            allowed = np.full(moved.shape, limits.attention_max_abs / 2)
        close = np.asarray((moved <= allowed).all(axis=1))
        if self.float16 and not is_map:
            share = 10 ** (-limits.snr_db / 20) / 2
            close |= np.linalg.norm(moved, axis=1) <= share * np.linalg.norm(size, axis=1)
        return close


def _unmoved(run: _Run, inputs: Tensors, values: KerasOutputs, rows: Array, step: _Step) -> Array:
    """Which of ``rows`` have outputs and maps that hardly move when inputs change by ``step``."""
    unmoved = np.ones(len(rows), bool)
    if not len(rows) or all(array.all() for array in step.exact.values()):
        return unmoved
    generator = np.random.default_rng(SEED)
    before = values.all
    size = sum(value[rows].nbytes for value in before.values())
    # A call of Keras' predict takes longer than a small model.
    together = PERTURBATIONS if PERTURBATIONS * size <= TOGETHER_BYTES else 1
    for _ in range(PERTURBATIONS // together):
        changed = [
            {name: step.changed(name, value, rows, generator) for name, value in inputs.items()}
            for _ in range(together)
        ]
        after = run({name: np.concatenate([part[name] for part in changed]) for name in inputs})
        unmoved &= _close(values, after, rows, step, together)
    return unmoved


def _unmoved_by_weights(
    run: _Run, rounded: _Rounded, inputs: Tensors, values: KerasOutputs, rows: Array, step: _Step
) -> Array:
    """Which of ``rows`` have outputs and maps that hardly move if weights change."""
    unmoved = np.ones(len(rows), bool)
    if not len(rows):
        return unmoved
    selected = {name: array[rows] for name, array in inputs.items()}
    for seed in range(WEIGHT_PERTURBATIONS):
        with rounded(step.precisions, seed):
            unmoved &= _close(values, run(selected), rows, step)
    return unmoved


def _unmoved_zeros(
    run: _Run, averaged: _Averaged, inputs: Tensors, values: KerasOutputs, rows: Array, step: _Step
) -> Array:
    """Which of ``rows`` have outputs and maps that hardly move if averages change.

    Only rows with zeros are computed, and only if tiny values in place of these move the outputs.
    Tiny values alone are no reason to leave a row out: they are larger than the rounding of zeros.
    """
    has_zeros = np.zeros(len(rows), bool)
    for name, array in inputs.items():
        found = (array[rows] == 0) & (array.dtype.kind == "f") & ~step.exact[name][rows]
        has_zeros |= found.any(axis=tuple(range(1, found.ndim)))
    unmoved = np.ones(len(rows), bool)
    zeros = np.flatnonzero(has_zeros)
    zeros = zeros[~_unmoved(run, inputs, values, rows[zeros], step)]
    if len(zeros):
        selected = {name: array[rows[zeros]] for name, array in inputs.items()}
        share = step.precisions * float(np.finfo(np.float32).eps)
        for sign in (-1, 1):
            after = averaged(selected, sign * share)
            outputs = {name: after[name] for name in values.outputs}
            maps = {name: after[name] for name in values.maps}
            unmoved[zeros] &= _close(values, KerasOutputs(outputs, maps, {}), rows[zeros], step)
    return unmoved


def _scale(samples: Array) -> float:
    """The largest absolute value; 1 if all are 0."""
    return float(np.abs(samples.astype(np.float64)).max(initial=0.0)) or 1.0


def _close(
    values: KerasOutputs, after: KerasOutputs, rows: Array, step: _Step, copies: int = 1
) -> Array:
    """Which of ``rows`` of ``values`` hardly differ from all ``copies`` of them in ``after``."""
    close = np.ones(len(rows), bool)
    close[[row % len(rows) for row in after.failed]] = False
    for name, value in after.all.items():
        if value.dtype.kind != "f":
            continue
        for part in np.split(value, copies):
            close &= step.within(values.all[name][rows], part, is_map=name in values.maps)
    return close
