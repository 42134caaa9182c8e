"""Whether artifacts are converted right if no rounding cost is known."""

import artifacts
import numpy as np
import pytest
from artifacts import Y, dense, samples
from function_runner import FunctionRunner

from edgeattn.metrics.verdict import RIGHT, UNKNOWN
from edgeattn.validation.validate import validate


@pytest.mark.parametrize("scheme", ["float16", "dynamic_int8", "int8"])
@pytest.mark.parametrize("rounding", [None, {"float16": {}, "int8": {}}])
@pytest.mark.parametrize(("error", "conversion"), [(0.0, RIGHT), (8e-6, RIGHT), (0.01, UNKNOWN)])
def test_outputs_within_the_tolerance_are_right(tmp_path, scheme, rounding, error, conversion):
    """Such as those of a model that computes with integers only, whose rounding costs nothing.

    The tolerance is 1e-5 for zeros, and more for other values.
    """
    entries = artifacts.declared_artifacts(tmp_path, (scheme,), (Y,))
    x = samples(20)
    bundle = artifacts.write_bundle(tmp_path, entries, {"input/x": x, "output/score": dense(x)})
    if rounding is not None:
        bundle.manifest.reference["rounding"] = rounding

    def moved(tensors):
        return {"score": (dense(tensors["x"]).astype(np.float64) + error).astype(np.float32)}

    (report,) = validate(
        bundle, bundle.manifest.artifacts, lambda a: FunctionRunner(moved, a.inputs, a.outputs)
    ).artifacts
    assert report.conversion == conversion
