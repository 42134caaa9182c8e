"""The check ``preprocess``: the front end computes what the original preprocessing computes."""

from collections.abc import Iterator

import numpy as np

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.errors import BundleError, SampleError
from edgeattn.inference.raw import RawModel
from edgeattn.inference.raw_samples import RAW, from_json_bytes
from edgeattn.metrics.limits import Check
from edgeattn.samples.states import sample_inputs
from edgeattn.tensors import Tensors

# Of the largest value. Sums are rounded in another order; integers must be equal.
LIMIT = 1e-4


def preprocess_checks(bundle: Bundle, artifact: Artifact, reference: Tensors) -> Iterator[Check]:
    """A check of each input: the front end's values for the raw samples of the reference.

    They are compared with the inputs in the reference, which the original layers computed. No
    checks if the bundle has no front end or the reference no raw samples.
    """
    front_end = bundle.front_end()
    specs = sample_inputs(artifact.inputs)
    if front_end is None or not any(f"{RAW}{spec.name}" in reference for spec in specs):
        return
    try:
        raw = {spec.name: from_json_bytes(reference[f"{RAW}{spec.name}"]) for spec in specs}
    except KeyError as error:
        raise BundleError(
            f"The reference of {bundle.path} has no raw samples {error}.",
            hint="Convert the model again.",
        ) from error
    model = RawModel(front_end, artifact.inputs, (), lambda inputs: inputs)
    samples = [dict(zip(raw, values, strict=True)) for values in zip(*raw.values(), strict=True)]
    try:
        rows = [model.prepare(sample) for sample in samples]
    except SampleError as error:
        yield Check(artifact.label, "structure", "preprocess", np.inf, LIMIT, detail=error.message)
        return
    for spec in specs:
        actual = np.concatenate([row[spec.name] for row in rows]).astype("float64")
        expected = reference[f"input/{spec.name}"][: len(rows)].astype("float64")
        difference = float(np.abs(actual - expected).max(initial=0))
        if np.dtype(spec.dtype).kind == "f" or spec.quantized:
            difference /= max(float(np.abs(expected).max(initial=0)), 1e-6)
        yield Check(artifact.label, "structure", "preprocess", difference, LIMIT, output=spec.name)
