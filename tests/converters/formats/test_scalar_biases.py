"""Numbers that are added to transposed convolutions, in TFLite files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

SHAPE = (5, 7, 3)
CASES: dict[str, Callable[[Any], Any]] = {
    "difference": lambda x: layers.Conv2DTranspose(4, 3, 2, "same")(x) - 1.0,
    "sum without bias": lambda x: layers.Conv2DTranspose(4, 3, use_bias=False)(x) + 2.0,
    "product and sum": lambda x: layers.Conv2DTranspose(4, 3)(x) * 2.0 - 1.0,
    "before an activation": lambda x: ops.relu(layers.Conv2DTranspose(4, 3)(x) + 0.5),
    "layer": lambda x: layers.Rescaling(3.0, 0.5)(layers.Conv2DTranspose(4, 3)(x)),
    "signal": lambda x: layers.Conv1DTranspose(4, 3)(x[:, 0]) + 1.0,
    "one channel": lambda x: layers.Conv2DTranspose(1, 3)(x) + 1.0,
}


@pytest.mark.long
def test_numbers_are_added_to_every_channel(tmp_path: Path) -> None:
    keras.utils.set_random_seed(2)
    x = keras.Input(SHAPE, name="x")
    model = keras.Model(x, {name.replace(" ", "_"): call(x) for name, call in CASES.items()})
    path = tmp_path / "m.tflite"
    file = tflite.convert(model, interface_of(model), recipe_for("float32"), path)
    values = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype("float32")
    actual = open_runner(path, "tflite", file.inputs, file.outputs).run({"x": values})
    for name, expected in model.predict(values, verbose=0).items():
        np.testing.assert_allclose(actual[name], expected, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("scheme", only(("float16", "dynamic_int8", "int8"), "int8"))
def test_biases_of_quantized_files(scheme: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(2)
    x = keras.Input(SHAPE, name="x")
    model = keras.Model(x, layers.Conv2DTranspose(4, 3)(x) - 1.0)
    values = np.random.default_rng(0).normal(size=(32, *SHAPE)).astype("float32")
    path = tmp_path / "m.tflite"
    recipe = recipe_for(scheme)
    file = tflite.convert(model, interface_of(model), recipe, path, samples={"x": values})
    (actual,) = open_runner(path, "tflite", file.inputs, file.outputs).run({"x": values}).values()
    np.testing.assert_allclose(actual, model.predict(values, verbose=0), atol=0.05)
