"""Checks of an artifact's outputs and attention maps against those of Keras."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from edgeattn.bundle.manifest import Artifact
from edgeattn.metrics import pairwise
from edgeattn.metrics.limits import Check, Limit, Limits, limits_for
from edgeattn.metrics.running_metrics import RunningMetrics
from edgeattn.tensors import Array, Tensors

AttentionMetric = Callable[[Array, Array], float]


def comparison_checks(
    artifact: Artifact,
    expected: Tensors,
    actual: Tensors,
    repeated: Tensors,
    ordinary: int | None = None,
    *,
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
        limits: Limits that replace those of the scheme.
    """
    for spec in artifact.outputs:
        stage = "attention" if spec.name in artifact.attention else "numbers"
        chosen = limits_for(artifact.scheme, spec.name, limits)
        want = expected[spec.name]

        def check(
            metric: str,
            value: float,
            limit: float | None = None,
            relation: str = "<=",
            heads: tuple[float, ...] = (),
            *,
            stage: str = stage,
            output: str = spec.name,
        ) -> Check:
            return Check(artifact.label, stage, metric, value, limit, relation, output, heads)

        if spec.name not in actual or spec.name not in repeated:
            yield check("missing", 1.0, 0.0)
            continue
        got, again = actual[spec.name], repeated[spec.name]
        if want.shape != got.shape or again.shape != got[:1].shape:
            yield check("wrong_shape", 1.0, 0.0)
            continue
        yield check("non_finite", pairwise.new_non_finite(want, got), 0.0)
        first, again = pairwise.mask_equal_non_finite(got[:1], again)
        yield check("repeat_error", pairwise.max_abs_error(first, again), 0.0)
        want, got = pairwise.mask_equal_non_finite(want, got)
        if not chosen.extremes:
            want, got = want[:ordinary], got[:ordinary]
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
    parts = [slice(0, ordinary)]
    if ordinary is not None and len(expected) > ordinary:
        parts.append(slice(ordinary, None))
    snr_db = float(np.min([pairwise.snr_db(expected[part], actual[part]) for part in parts]))
    yield from metrics.checks(check, snr_db=snr_db)


def attention_checks(
    check: Callable[..., Check], expected: Array, actual: Array, limits: Limits
) -> Iterator[Check]:
    """The checks of attention maps ``(samples, [heads,] [queries,] keys)``, head by head.

    The value of a check is that of the worst head, so that one lost head is not averaged away.
    """
    multi_head = expected.ndim == 4
    count = expected.shape[1] if multi_head else 1
    pairs = [
        (expected[:, h], actual[:, h]) if multi_head else (expected, actual) for h in range(count)
    ]
    most = limits.attention_max_abs
    table: tuple[tuple[str, AttentionMetric, float | None, str], ...] = (
        ("max_abs_error", pairwise.max_abs_error, most, "<="),
        ("jensen_shannon", pairwise.jensen_shannon, limits.attention_jsd, "<="),
        ("row_sum_error", pairwise.row_sum_error, most, "<="),
        ("masked_mass", pairwise.masked_mass, most, "<="),
        ("entropy_shift", pairwise.entropy_shift, None, "<="),
        ("topk_overlap", pairwise.topk_overlap, None, ">="),
        ("argmax_stability", pairwise.argmax_stability, None, ">="),
    )
    for name, metric, limit, relation in table:
        values = tuple(metric(*pair) for pair in pairs)
        worst = float(np.max(values) if relation == "<=" else np.min(values))
        yield check(name, worst, limit, relation, values if multi_head else ())
