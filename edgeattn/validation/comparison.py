"""What an artifact answered to the reference's inputs, held to what Keras did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeattn.bundle.manifest import Artifact
from edgeattn.metrics import pairwise as metrics
from edgeattn.metrics.limits import Check, Limit, limits_for
from edgeattn.metrics.pairwise import new_non_finite, without_agreed
from edgeattn.tensors import Tensors
from edgeattn.validation.attention_maps import judge_map
from edgeattn.validation.outputs import judge_numbers


def compare(
    artifact: Artifact,
    expected: Tensors,
    actual: Tensors,
    again: Tensors,
    ordinary: int | None = None,
    *,
    limits: Sequence[Limit] = (),
) -> Iterator[Check]:
    """The numbers and attention checks of one artifact.

    ``expected`` and ``actual`` hold every output for all sequences, ``again`` the outputs for the
    first sequence run once more after the last one: it must come out as it did at first. Rows from
    ``ordinary`` on are far beyond the samples; without it, none is.
    """
    for spec in artifact.outputs:
        stage = "attention" if spec.name in artifact.attention else "numbers"
        chosen = limits_for(artifact.scheme, spec.name, limits)
        want = expected[spec.name]

        def check(
            metric: str,
            value: float,
            limit: float | None = None,
            better: str = "<=",
            *,
            heads: tuple[float, ...] = (),
            stage: str = stage,
            output: str = spec.name,
        ) -> Check:
            return Check(artifact.label, stage, metric, value, limit, better, output, heads)

        if spec.name not in actual or spec.name not in again:
            yield check("missing", 1.0, 0.0)
            continue
        got, repeated = actual[spec.name], again[spec.name]
        if want.shape != got.shape or repeated.shape != got[:1].shape:
            yield check("wrong_shape", 1.0, 0.0)
            continue
        yield check("non_finite", new_non_finite(want, got), 0.0)
        first, repeated = without_agreed(got[:1], repeated)
        yield check("repeat_error", metrics.max_abs_error(first, repeated), 0.0)
        want, got = without_agreed(want, got)
        if not chosen.extremes:
            want, got = want[:ordinary], got[:ordinary]
        if stage == "attention":
            yield from judge_map(check, want, got, chosen)
        else:
            yield from judge_numbers(check, want, got, chosen, ordinary)
