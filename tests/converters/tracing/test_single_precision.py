"""Models that Keras computes partly in float64 become float32 files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from edgeattn.runners import open_runner
from edgeattn.tensors import Tensors
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}


class Loop(keras.layers.Layer):  # type: ignore[misc]
    """``x`` halved three times in a loop, whose body is a function of float64."""

    def call(self, x: Any) -> Any:
        start = (tf.constant(0), tf.cast(x, tf.float64))
        _, result = tf.while_loop(lambda k, _: k < 3, lambda k, y: (k + 1, y * 0.5), start)
        return result


# An array of NumPy is float64, unless it is written otherwise.
OUTPUTS: Mapping[str, Callable[[Any], Any]] = {
    "sum": lambda x: x + np.arange(5.0),
    "product": lambda x: ops.matmul(x, np.eye(5)[:, :3]),
    "before_layer": lambda x: keras.layers.Dense(2, name="dense")(x * np.ones(5)),
    "cumulated": lambda x: ops.cumsum(x * np.arange(5.0), axis=1),
    "inverse": lambda x: ops.inv(x[:, :, None] * x[:, None, :] + 3 * np.eye(5)),
    "loop": Loop(),
}


@pytest.fixture(scope="module", params=CONVERTERS)
def outputs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tensors, Tensors]:
    """What Keras and the file compute."""
    keras.utils.set_random_seed(3)
    x = keras.Input((5,), name="x")
    model = keras.Model(x, {name: call(x) for name, call in OUTPUTS.items()})
    interface = interface_of(model)
    assert {spec.dtype for spec in interface.outputs} == {"float32"}
    path = tmp_path_factory.mktemp("single") / "model"
    file = CONVERTERS[request.param].convert(model, interface, recipe_for("float32"), path)
    data = np.random.default_rng(1).normal(size=(1, 5)).astype("float32")
    runner = open_runner(path, request.param, file.inputs, file.outputs)
    return model.predict(data, verbose=0), runner.run({"x": data})


@pytest.mark.parametrize("name", OUTPUTS)
def test_results_as_in_keras(name: str, outputs: tuple[Tensors, Tensors]) -> None:
    expected, actual = outputs
    assert actual[name].dtype == np.float32
    np.testing.assert_allclose(actual[name], expected[name], rtol=1e-5, atol=1e-6)
