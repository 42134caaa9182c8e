"""What one machine may differ by from another in running the same artifact: the device's stage.

Keras is what an artifact is judged by. This asks something else: does the device's code compute
what this machine's code computes from the same file? The limits are what rounding in another order
does, and no more:

    float32            1e-5 of the output's size, or of 1 where that is larger
    float16, dynamic   1e-3 of it
    int8, int16x8      two steps of 256 over what the output spans, and the same class where the
                       first two are not within them

Only samples count, and edge cases as ordinary as those: on inputs far beyond them integers saturate
by design, and Keras' limits say what must hold there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgeattn.metrics import pairwise as metrics
from edgeattn.tensors import Array, Tensors

if TYPE_CHECKING:
    from edgeattn import ArtifactReport, Check, Report
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import Artifact

FLOATS = {"float32": 1e-5, "float16": 1e-3, "dynamic_int8": 1e-3}
STEPS = 2


def tolerance(scheme: str, expected: Array) -> float:
    """The largest difference that two machines may show in an output, given one's answers."""
    if scheme in FLOATS:
        return FLOATS[scheme] * max(1.0, float(np.abs(expected).max(initial=0.0)))
    return STEPS * float(np.ptp(expected)) / 255


def compare(
    artifact: Artifact, here: Tensors, there: Tensors, rows: int | None = None
) -> Iterator[Check]:
    """The device's stage of one artifact, over the first ``rows`` answers of both machines, or all.

    What is not finite on both sides alike is no difference.
    """
    from edgeattn import Check

    for spec in artifact.outputs:
        if spec.name not in here or spec.name not in there:
            continue
        want, got = here[spec.name][:rows], there[spec.name][:rows]
        same = ~np.isfinite(want) & ((want == got) | (np.isnan(want) & np.isnan(got)))
        want, got = np.where(same, 0, want), np.where(same, 0, got)
        limit = tolerance(artifact.scheme, want)
        error = metrics.max_abs_error(want, got)
        told = ("device", "difference_from_host", error, limit, "<=", spec.name)
        yield Check(artifact.label, *told)
        if artifact.scheme not in FLOATS and want.ndim >= 2 and want.shape[-1] > 1:
            # Classes that lie within those steps of each other may well swap.
            largest = float(np.abs(want).max(initial=0.0)) or 1.0
            near = max(metrics.NEAR_TIE, limit / largest)
            agreed = metrics.top1_agreement(want, got, near_tie=near)
            told = ("device", "same_class_as_host", agreed, 1.0, ">=", spec.name)
            yield Check(artifact.label, *told)


def with_device(there: Report, here: Report, bundle: Bundle) -> Report:
    """``there`` with the device's stage, for the artifacts that ran on both machines."""
    told = bundle.manifest.reference
    rows = int(told["samples"]) + int(told.get("ordinary_edge_cases", 0))
    near = {item.artifact.path: item for item in here.artifacts}
    found = (_with(item, near.get(item.artifact.path), rows) for item in there.artifacts)
    return replace(there, artifacts=tuple(found))


def _with(there: ArtifactReport, here: ArtifactReport | None, rows: int) -> ArtifactReport:
    if here is None or not there.answers or not here.answers:
        return there
    checks = compare(there.artifact, here.answers, there.answers, rows)
    return replace(there, checks=(*there.checks, *checks))
