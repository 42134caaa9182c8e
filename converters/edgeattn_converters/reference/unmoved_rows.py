"""Rows whose outputs and maps in Keras hardly move if inputs, weights or results change."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn.metrics.limits import LIMITS
from edgeattn.tensors import Array, Tensors
from edgeattn_converters.reference.edge_cases import SEED
from edgeattn_converters.reference.keras_outputs import KerasOutputs, by_row_on_failure
from edgeattn_converters.reference.shifted_means import Averaged

# How often inputs are changed in their last digit, and how far the outputs may move: half of the
# tolerance of a float32 artifact.
PERTURBATIONS = 4
# Weights are more than the values of a row, so that fewer changes of them are needed.
WEIGHT_PERTURBATIONS = 2
MATRIX_PERTURBATIONS = 4
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
_WithMatrices = Callable[[Tensors, int, int], KerasOutputs | None]


@dataclass(frozen=True)
class Changes:
    """Functions that compute what Keras does after a slight change; None if they are not needed.

    Attributes:
        activations: Each computes the outputs with slightly different activations; extremes on
            which these differ are left out.
        weights: A context with other weights, given how many times their precision they differ,
            and a seed.
        averages: Computes outputs and maps with averages that change.
        matrices: Computes outputs and maps with other matrices in operations that factor, invert or
            solve, given how many times their precision they differ, and a seed; None if TensorFlow
            computes no row.
    """

    activations: Sequence[_Run] = ()
    weights: _Rounded | None = None
    averages: Averaged | None = None
    matrices: _WithMatrices | None = None


NO_CHANGES = Changes()


@dataclass(frozen=True)
class Step:
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


def unmoved_by_inputs(
    run: _Run, inputs: Tensors, values: KerasOutputs, rows: Array, step: Step
) -> Array:
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


def unmoved_by_weights(
    run: _Run, rounded: _Rounded, inputs: Tensors, values: KerasOutputs, rows: Array, step: Step
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


def unmoved_zeros(
    run: _Run, averaged: Averaged, inputs: Tensors, values: KerasOutputs, rows: Array, step: Step
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
    zeros = zeros[~unmoved_by_inputs(run, inputs, values, rows[zeros], step)]
    if len(zeros):
        share = step.precisions * float(np.finfo(np.float32).eps)
        changes = [(sign * share, sign) for sign in (-1, 1)]
        unmoved[zeros] = _unmoved_by_averages(averaged, inputs, values, rows[zeros], step, changes)
    return unmoved


def unmoved_by_equal_numbers(
    averaged: Averaged, inputs: Tensors, values: KerasOutputs, rows: Array, step: Step
) -> Array:
    """Which of ``rows`` have outputs and maps that hardly move if averages of equal numbers change.

    Numbers within a model are equal for zeros, and also for other rows: high values are clipped.
    """
    if not len(rows):
        return np.ones(0, bool)
    changes = [(0.0, direction) for direction in (-1, 0, 1)]
    return _unmoved_by_averages(averaged, inputs, values, rows, step, changes)


def _unmoved_by_averages(
    averaged: Averaged,
    inputs: Tensors,
    values: KerasOutputs,
    rows: Array,
    step: Step,
    changes: Sequence[tuple[float, int]],
) -> Array:
    """``changes`` are shares of averages and directions of those of equal numbers.

    No row is unmoved if TensorFlow computes none after a change, such as if an index is outside.
    """
    import tensorflow as tf

    unmoved = np.ones(len(rows), bool)
    selected = {name: array[rows] for name, array in inputs.items()}

    def changed(share: float, direction: int) -> KerasOutputs:
        def run(part: Tensors) -> KerasOutputs:
            after = averaged(part, share, direction)
            outputs = {name: after[name] for name in values.outputs}
            return KerasOutputs(outputs, {name: after[name] for name in values.maps}, {})

        return by_row_on_failure(run)(selected)

    try:
        for change in changes:
            unmoved &= _close(values, changed(*change), rows, step)
    except (UnsupportedModelError, tf.errors.OpError):
        return np.zeros(len(rows), bool)
    return unmoved


def unmoved_by_matrices(
    changed: _WithMatrices, inputs: Tensors, values: KerasOutputs, rows: Array, step: Step
) -> Array:
    """Which of ``rows`` have outputs and maps that hardly move if matrices change."""
    unmoved = np.ones(len(rows), bool)
    if not len(rows):
        return unmoved
    selected = {name: array[rows] for name, array in inputs.items()}
    for seed in range(MATRIX_PERTURBATIONS):
        after = changed(selected, step.precisions, seed)
        if after is None:
            return np.zeros(len(rows), bool)
        unmoved &= _close(values, after, rows, step)
    return unmoved


def scale(samples: Array) -> float:
    """The largest absolute value; 1 if all are 0."""
    return float(np.abs(samples.astype(np.float64)).max(initial=0.0)) or 1.0


def _close(
    values: KerasOutputs, after: KerasOutputs, rows: Array, step: Step, copies: int = 1
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
