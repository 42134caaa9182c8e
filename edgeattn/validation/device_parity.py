"""The device stage: does the device compute what this machine computes from the same artifact?

Rounding in another order is the only difference that is accepted:

    float32                1e-5 times the largest magnitude of the output, or times 1 if larger
    float16, dynamic_int8  1e-3 times the same
    int8, int16x8, int4    two steps of 1/255 of the output's range; the predicted class must be
                           the same, unless the two highest scores are closer than that

Only samples and ordinary edge cases are compared. On extreme inputs, integers saturate by design.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.metrics import pairwise
from edgeattn.metrics.limits import Check
from edgeattn.tensors import Array, Tensors
from edgeattn.validation.report import ArtifactReport, Report

FLOAT_TOLERANCES = {"float32": 1e-5, "float16": 1e-3, "dynamic_int8": 1e-3}
INTEGER_STEPS = 2


def tolerance(scheme: str, expected: Array) -> float:
    """The largest accepted difference between two machines, from the outputs of one of them."""
    if scheme in FLOAT_TOLERANCES:
        return FLOAT_TOLERANCES[scheme] * max(1.0, float(np.abs(expected).max(initial=0.0)))
    return INTEGER_STEPS * float(np.ptp(np.asarray(expected, np.float64))) / 255


def device_checks(
    artifact: Artifact, host_outputs: Tensors, device_outputs: Tensors, rows: int | None = None
) -> Iterator[Check]:
    """The checks of the device stage for one artifact.

    Outputs are dictionaries of arrays by name, the sample axis first; the first ``rows`` samples
    are compared, or all. Equal infinities and NaN on both sides are no difference.
    """
    for spec in artifact.outputs:
        if spec.name not in host_outputs or spec.name not in device_outputs:
            continue
        expected, actual = pairwise.mask_equal_non_finite(
            host_outputs[spec.name][:rows], device_outputs[spec.name][:rows]
        )
        limit = tolerance(artifact.scheme, expected)
        error = pairwise.max_abs_error(expected, actual)
        metric = "difference_from_host"
        yield Check(artifact.label, "device", metric, error, limit, "<=", spec.name)
        if artifact.scheme not in FLOAT_TOLERANCES and _has_classes(expected):
            # Classes whose scores are closer than the tolerance may swap.
            largest = float(np.abs(expected).max(initial=0.0)) or 1.0
            near_tie = max(pairwise.NEAR_TIE, limit / largest)
            share = pairwise.top1_agreement(expected, actual, near_tie=near_tie)
            metric = "same_class_as_host"
            yield Check(artifact.label, "device", metric, share, 1.0, ">=", spec.name)


def _has_classes(scores: Array) -> bool:
    return scores.ndim >= 2 and scores.shape[-1] > 1


def add_device_stage(report: Report, host_report: Report, bundle: Bundle) -> Report:
    """``report`` of a device, with the device stage for artifacts that ran on both machines."""
    reference = bundle.manifest.reference
    rows = int(reference["samples"]) + int(reference.get("ordinary_edge_cases", 0))
    on_host = {item.artifact.path: item for item in host_report.artifacts}

    def extended(item: ArtifactReport) -> ArtifactReport:
        host_item = on_host.get(item.artifact.path)
        if host_item is None or not item.outputs or not host_item.outputs:
            return item
        checks = device_checks(item.artifact, host_item.outputs, item.outputs, rows)
        return replace(item, checks=(*item.checks, *checks))

    return replace(report, artifacts=tuple(extended(item) for item in report.artifacts))
