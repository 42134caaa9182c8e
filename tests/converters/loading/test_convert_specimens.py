"""Specimens converted to both formats compute what the Keras version that saved them computed.

One in twelve specimens is tested; ``make specimens`` tests all of them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from long_parameters import only
from test_load_specimens import (
    CUSTOM,
    ENTRIES,
    SPECIMENS,
    UNREADABLE,
    architecture_of,
    inputs_of,
    outputs_of,
)

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEP = 1 if os.environ.get("EDGEATTN_ALL_SPECIMENS") else 12
SELECTED = [entry for entry in ENTRIES if entry["file"] not in UNREADABLE][::STEP]


@pytest.mark.parametrize("entry", only(SELECTED, *SELECTED[::8]), ids=lambda entry: entry["file"])
def test_both_formats(entry: dict[str, Any], tmp_path: Path) -> None:
    path = SPECIMENS / entry["file"]
    custom = tmp_path / "custom.py"
    custom.write_text(CUSTOM)
    model = load_model(
        audit_file(path),
        architecture=architecture_of(path),
        custom_objects=custom if "custom_layer" in path.name else None,
    ).model
    with np.load(SPECIMENS / entry["truth"]) as truth:
        inputs, expected = inputs_of(model, truth), outputs_of(truth)
    inputs = inputs if isinstance(inputs, list) else [inputs]
    interface = interface_of(model)
    for format, converter in (("tflite", tflite), ("onnx", onnx)):
        file = tmp_path / f"model.{format}"
        specs, outputs, *_ = converter.convert(model, interface, recipe_for("float32"), file)
        runner = open_runner(file, format, specs, outputs, as_deployed=True)
        feeds = {s.name: np.asarray(x, s.dtype) for s, x in zip(specs, inputs, strict=True)}
        actual = runner.run(feeds)
        for spec, reference in zip(outputs, expected, strict=False):  # attention maps come last
            tolerance = 1e-5 * max(1.0, float(np.abs(reference).max()))
            np.testing.assert_allclose(
                actual[spec.name], reference, rtol=1e-4, atol=tolerance, err_msg=format
            )
