"""Checks of an artifact's outputs and attention maps against those of Keras."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from edgeattn.bundle.manifest import Artifact
from edgeattn.metrics import pairwise
from edgeattn.metrics.limits import Check, Limit, Limits, checks_of, limits_for
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
        yield check("non_finite", pairwise.new_non_finite(want, got), 0.0)
        if stage == "numbers" and not pairwise.are_classes(want):
            # Of ordinary use: extremes have larger errors.
            part = slice(0, samples)
            error = pairwise.max_abs_error(*pairwise.mask_equal_non_finite(want[part], got[part]))
            yield check("samples_max_abs_error", error)
        first, again = pairwise.mask_equal_non_finite(got[:1], again)
        yield check("repeat_error", pairwise.max_abs_error(first, again), 0.0)
        want, got = pairwise.mask_equal_non_finite(want, got)
        if not chosen.extremes:
            want, got = want[:ordinary], got[:ordinary]
        elif artifact.scheme == "float16":
            want, got = want[:float16], got[:float16]
        if stage == "attention":
            yield from attention_checks(check, want, got, chosen)
        else:
            yield from output_checks(check, want, got, chosen, ordinary)


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


def attention_checks(
    check: Callable[..., Check], expected: Array, actual: Array, limits: Limits
) -> Iterator[Check]:
    """The checks of an attention map ``(samples, [heads,] [queries,] keys)``, head by head."""
    metrics = RunningAttention(limits)
    metrics.add(expected, actual)
    yield from metrics.checks(check)
