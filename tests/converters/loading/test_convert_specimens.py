"""Specimens of every Keras, all the way to both formats, against what their own Keras predicted.

One in twelve; ``make specimens`` takes all of them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_load_specimens import CUSTOM, ENTRIES, SPECIMENS, UNREADABLE, _beside, _inputs, _outputs

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEP = 1 if os.environ.get("EDGEATTN_ALL_SPECIMENS") else 12
CHOSEN = [entry for entry in ENTRIES if entry["file"] not in UNREADABLE][::STEP]


@pytest.mark.parametrize("entry", CHOSEN, ids=lambda entry: entry["file"])
def test_both_formats(entry: dict[str, Any], tmp_path: Path) -> None:
    path = SPECIMENS / entry["file"]
    own = tmp_path / "own.py"
    own.write_text(CUSTOM)
    model = load_model(
        audit_file(path),
        architecture=_beside(path),
        custom_objects=own if "custom_layer" in path.name else None,
    ).model
    with np.load(SPECIMENS / entry["truth"]) as truth:
        inputs, expected = _inputs(model, truth), _outputs(truth)
    inputs = inputs if isinstance(inputs, list) else [inputs]
    interface = interface_of(model)
    for format, converter in (("tflite", tflite), ("onnx", onnx)):
        file = tmp_path / f"model.{format}"
        specs, outputs, *_ = converter.convert(model, interface, recipe_for("float32"), file)
        runner = open_runner(file, format, specs, outputs, as_deployed=True)
        feeds = {s.name: np.asarray(x, s.dtype) for s, x in zip(specs, inputs, strict=True)}
        actual = runner.run(feeds)
        for spec, wanted in zip(outputs, expected, strict=False):  # maps come behind
            tolerance = 1e-5 * max(1.0, float(np.abs(wanted).max()))
            np.testing.assert_allclose(
                actual[spec.name], wanted, rtol=1e-4, atol=tolerance, err_msg=format
            )
