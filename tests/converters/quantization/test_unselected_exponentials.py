"""Integer files of exponentials that are selected for negative values only, as in a SELU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from long_parameters import only
from quantized_models import integer_file

from edgeattn.metrics.pairwise import snr_db
from edgeattn.runners import open_runner

FORMS: dict[str, Callable[[Any], Any]] = {
    "selu": ops.selu,
    "greater": lambda x: ops.where(x > 0.0, x, 1.5 * (ops.exp(x) - 1.0)),
    "greater or equal": lambda x: ops.where(x >= 0.0, x, ops.exp(x) - 1.0),
    "less": lambda x: ops.where(x < 0.0, ops.exp(x) - 1.0, x),
    "less or equal": lambda x: ops.where(x <= 0.0, 0.5 * ops.exp(x), 0.5 + x),
}


@pytest.mark.parametrize("scheme", only(("int8", "int16x8"), "int8"))
@pytest.mark.parametrize("form", only(FORMS, "selu", "less"))
def test_the_values_that_are_left_out_take_no_integers(
    form: str, scheme: str, tmp_path: Path
) -> None:
    """The exponential of 12 is 163,000: with it, 255 steps leave nothing for values from 0 to 1."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((12,), name="x")
    hidden = FORMS[form](layers.Dense(8)(inputs))
    model = keras.Model(inputs, layers.Dense(3, name="y")(hidden))
    x = np.random.default_rng(1).normal(0, 4, (60, 12)).astype("float32")
    path = tmp_path / "m.tflite"
    file = integer_file(model, {"x": x}, path, scheme)
    runner = open_runner(path, "tflite", file.inputs, file.outputs, as_deployed=True)
    actual = runner.run({"x": x})["y"]
    assert snr_db(model.predict(x, verbose=0), actual) >= {"int8": 30, "int16x8": 38}[scheme]
