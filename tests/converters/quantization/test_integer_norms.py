"""Normalized vectors in int8, for which TFLite has one operator; quotients have no int8 form."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from quantized_models import CONVERTERS

from edgeattn.metrics import pairwise as metrics
from edgeattn.runners import open_runner
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of


@pytest.mark.parametrize(("epsilon", "operators"), [(1e-7, 1), (1e-4, 0)])
def test_only_small_epsilons_are_left_out(epsilon: float, operators: int, tmp_path: Path) -> None:
    x = keras.Input((5, 4), name="x")
    h = keras.layers.Dense(6, kernel_initializer=keras.initializers.GlorotUniform(3))(x)
    y = h / ops.sqrt(ops.sum(ops.square(h), axis=-1, keepdims=True) + epsilon)
    model = keras.Model(x, y)
    data = np.random.default_rng(7).normal(size=(64, 5, 4)).astype("float32")
    path = tmp_path / "model.tflite"
    file = CONVERTERS["tflite"].convert(
        model, interface_of(model), recipe_for("int8"), path, samples={"x": data}
    )
    assert file.achieved["operators"].get("L2_NORMALIZATION", 0) == operators
    runner = open_runner(path, "tflite", file.inputs, file.outputs)
    (name,) = (spec.name for spec in file.outputs)
    assert metrics.snr_db(model.predict(data, verbose=0), runner.run({"x": data})[name]) > 30
