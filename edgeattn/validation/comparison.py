"""Checks of an artifact's outputs and attention maps against those of Keras."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from edgeattn.bundle.manifest import Artifact
from edgeattn.metrics import pairwise
from edgeattn.metrics.limits import Check, Limit, Limits, checks_of, limits_for
from edgeattn.metrics.lost_values import ConstantHeads, LostValues
from edgeattn.metrics.running_attention import RunningAttention
from edgeattn.metrics.running_metrics import RunningMetrics
from edgeattn.tensors import Array, Tensors


def comparison_checks(
    artifact: Artifact,
    expected: Tensors,
    actual: Tensors,
    repeated: Tensors,
    ordinary: int | None = None,
    *,
    samples: int | None = None,
    float16: int | None = None,
    limits: Sequence[Limit] = (),
) -> Iterator[Check]:
    """The checks of the stages numbers and attention for one artifact.

    Args:
        artifact: The artifact.
        expected: Outputs of Keras by name, the sample axis first.
        actual: Outputs of the artifact for the same inputs.
        repeated: Outputs for the first sample, run again after the last one. They differ from the
            first ones if the artifact keeps state between samples.
        ordinary: The number of rows before the extreme edge cases; None if there are none.
        samples: The number of rows before all edge cases; None if there are none.
        float16: The number of rows before the extremes that float16 artifacts need not match,
            because weights that are rounded to float16 change the outputs too much; None for all.
        limits: Limits that replace those of the scheme.
    """
    states = {spec.state for spec in artifact.inputs}
    for spec in artifact.outputs:
        stage = "attention" if spec.name in artifact.attention else "numbers"
        chosen = limits_for(artifact.scheme, spec.name, limits)
        want = expected[spec.name]
        check = checks_of(artifact.label, stage, spec.name)
        if spec.name not in actual or spec.name not in repeated:
            yield check("missing", 1.0, 0.0)
            continue
        got, again = actual[spec.name], repeated[spec.name]
        if want.shape != got.shape or again.shape != got[:1].shape:
            yield check("wrong_shape", 1.0, 0.0)
            continue
        yield from _with_edge_cases(
            [check("non_finite", pairwise.new_non_finite(want, got), 0.0)],
            [check("non_finite", pairwise.new_non_finite(want[:samples], got[:samples]))],
        )
        if stage == "numbers" and not pairwise.are_classes(want):
            # Of ordinary use: extremes have larger errors.
            part = slice(0, samples)
            error = pairwise.max_abs_error(*pairwise.mask_equal_non_finite(want[part], got[part]))
            yield check("samples_max_abs_error", error)
        first, again = pairwise.mask_equal_non_finite(got[:1], again)
        yield check("repeat_error", pairwise.max_abs_error(first, again), 0.0)
        want, got = pairwise.mask_equal_non_finite(want, got)
        if artifact.scheme != "float32" and spec.name not in states:
            yield from lost_checks(check, stage, want[:samples], got[:samples], chosen)
        if not chosen.extremes:
            want, got = want[:ordinary], got[:ordinary]
        elif artifact.scheme == "float16":
            want, got = want[:float16], got[:float16]
        checks = list(_value_checks(check, stage, want, got, chosen, ordinary))
        missed = any(item.passed is False for item in checks)
        if missed and samples is not None and _edge_cases_are_worse(want, got, samples):
            alone = _value_checks(check, stage, want[:samples], got[:samples], chosen, None)
            error = pairwise.max_abs_error(want[samples:], got[samples:])
            yield from _with_edge_cases(checks, alone, error)
        else:
            yield from checks


def _with_edge_cases(
    checks: Iterable[Check], alone: Iterable[Check], error: float | None = None
) -> Iterator[Check]:
    """``checks``; missed ones that are better on the samples ``alone`` have that as a detail.

    Without it, the error in the table, which is that of the samples, contradicts a missed limit.
    ``error`` is the largest absolute error of the edge cases, if they have one.
    """
    values = {check.metric: check.value for check in alone}
    size = "" if error is None else f" (max abs error {error:.2g})"
    for check in checks:
        value = values.get(check.metric, math.nan)
        better = value < check.value if check.relation == "<=" else value > check.value
        if check.passed is False and better:
            detail = f"with edge cases{size}; on the samples alone it is {value:.3g}"
            check = replace(check, detail=detail)
        yield check


def _edge_cases_are_worse(expected: Array, actual: Array, samples: int) -> bool:
    """Whether the rows after the samples have the largest error. Classes have no errors."""
    if pairwise.are_classes(expected):
        return False
    error = pairwise.max_abs_error(expected[:samples], actual[:samples])
    return error < pairwise.max_abs_error(expected, actual)


def _value_checks(
    check: Callable[..., Check],
    stage: str,
    expected: Array,
    actual: Array,
    limits: Limits,
    ordinary: int | None,
) -> Iterator[Check]:
    if stage == "attention":
        return attention_checks(check, expected, actual, limits)
    return output_checks(check, expected, actual, limits, ordinary)


def output_checks(
    check: Callable[..., Check],
    expected: Array,
    actual: Array,
    limits: Limits,
    ordinary: int | None,
) -> Iterator[Check]:
    """The checks of an output, the sample axis first.

    The signal-to-noise ratio is the smaller of that of the first ``ordinary`` rows and that of the
    others, because extreme values would hide the noise of ordinary samples.
    """
    metrics = RunningMetrics(limits)
    metrics.add(expected, actual)
    if pairwise.are_classes(expected):
        yield from metrics.checks(check)
        return
    parts = [slice(0, ordinary)]
    if ordinary is not None and len(expected) > ordinary:
        parts.append(slice(ordinary, None))
    snr_db = float(np.min([pairwise.snr_db(expected[part], actual[part]) for part in parts]))
    yield from metrics.checks(check, snr_db=snr_db)


def lost_checks(
    check: Callable[..., Check], stage: str, expected: Array, actual: Array, limits: Limits
) -> Iterator[Check]:
    """The check of the lost values of an output, or of the constant heads of a map.

    The arrays have the sample axis first. Only the samples count: extremes change values that
    hardly change otherwise. The tolerance of float32 artifacts is smaller than any value that could
    be lost.
    """
    lost = (ConstantHeads if stage == "attention" else LostValues)(limits)
    lost.add(expected, actual)
    yield from lost.checks(check)


def attention_checks(
    check: Callable[..., Check], expected: Array, actual: Array, limits: Limits
) -> Iterator[Check]:
    """The checks of an attention map ``(samples, [heads,] [queries,] keys)``, head by head."""
    metrics = RunningAttention(limits)
    metrics.add(expected, actual)
    yield from metrics.checks(check)
