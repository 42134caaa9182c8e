"""The samples on which the operators of two artifacts are compared."""

import numpy as np

from edgeattn.bundle.bundle import Bundle
from edgeattn.tensors import Array, Tensors
from edgeattn.validation.report import ArtifactReport

# Those with the largest errors, and others at even distances.
WORST_SAMPLES, OTHER_SAMPLES = 4, 8


def compared_samples(bundle: Bundle, report: ArtifactReport, arrays: Tensors) -> Array:
    """Return the indices of the samples with the largest errors, and of others."""
    artifact, reference = report.artifact, bundle.manifest.reference
    count = int(reference["samples"]) + int(reference.get("ordinary_edge_cases", 0))
    available = len(arrays[f"input/{artifact.inputs[0].name}"])
    count = min(count or available, available)
    errors = np.zeros(count)
    for name, values in report.outputs.items():
        expected = arrays.get(name, arrays.get(f"output/{name}"))
        if expected is None or expected.shape != values.shape:
            continue
        with np.errstate(all="ignore"):
            difference = np.abs(values[:count].astype(float) - expected[:count])
        difference = np.nan_to_num(difference, nan=np.inf, posinf=np.inf)
        errors = np.maximum(errors, difference.reshape(count, -1).max(axis=1))
    worst = np.argsort(-errors, kind="stable")[:WORST_SAMPLES]
    others = np.linspace(0, count - 1, min(OTHER_SAMPLES, count)).astype(int)
    return np.unique(np.concatenate([worst, others]))
