"""Products of a value with itself behind convolutions, whose transposition tf2onnx moves."""

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
from edgeattn_converters.formats import onnx
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CHANNELS, SAMPLES = 4, 40


def square(x: Any) -> Any:
    return layers.Multiply()([x, x])


def _shallow(x: Any) -> Any:
    """ShallowConvNet for signals of brains, with fewer filters."""
    x = layers.Conv2D(5, (1, 7))(x)
    x = layers.Conv2D(5, (CHANNELS, 1), use_bias=False)(x)
    x = ops.square(layers.BatchNormalization()(x))
    x = layers.AveragePooling2D((1, 9), strides=(1, 3))(x)
    x = ops.log(ops.clip(x, 1e-7, 10000))
    return layers.Dense(2, activation="softmax")(layers.Flatten()(x))


def _sequence(x: Any) -> Any:
    return layers.Reshape((SAMPLES, CHANNELS))(x)


def _row(x: Any) -> Any:
    """Images with one row."""
    return layers.Conv2D(5, (CHANNELS, 3))(x)


NETWORKS: dict[str, Callable[[Any], Any]] = {
    "shallow": _shallow,
    "multiply": lambda x: layers.Flatten()(square(_row(x))),
    "twice": lambda x: layers.Flatten()(ops.square(square(_row(x)))),
    "relu": lambda x: layers.Flatten()(ops.relu(ops.square(_row(x)) - 0.1)),
    "exp": lambda x: layers.Flatten()(ops.exp(-ops.square(_row(x)))),
    "add": lambda x: layers.Flatten()(layers.Add()([_row(x)] * 2)),
    "maximum": lambda x: layers.Flatten()(ops.maximum(*[_row(x)] * 2)),
    "add_of_square": lambda x: layers.Flatten()(layers.Add()([square(_row(x))] * 2)),
    "concatenate": lambda x: layers.Flatten()(layers.Concatenate()([square(_row(x))] * 2)),
    "rows": lambda x: layers.Reshape((-1, 5))(square(_row(x))),
    "largest": lambda x: layers.Flatten()(layers.MaxPooling2D((1, 3))(square(_row(x)))),
    "mean": lambda x: layers.GlobalAveragePooling2D()(square(_row(x))),
    "column": lambda x: layers.Flatten()(square(layers.Conv2D(5, (3, SAMPLES))(x))),
    "one_filter": lambda x: layers.Dense(3)(square(layers.Conv2D(1, (2, 3))(x))),
    "depthwise": lambda x: layers.Flatten()(
        square(layers.DepthwiseConv2D((1, 3), depth_multiplier=2)(_row(x)))
    ),
    "transposed": lambda x: layers.Flatten()(
        square(layers.Conv2DTranspose(3, (1, 3), strides=(1, 2))(_row(x)))
    ),
    "pooled": lambda x: layers.Flatten()(square(layers.AveragePooling2D((CHANNELS, 2))(_two(x)))),
    "steps": lambda x: layers.Dense(3)(square(layers.Conv1D(1, 3)(_sequence(x)))),
    "pooled_steps": lambda x: layers.Flatten()(
        layers.AveragePooling1D(3)(square(layers.Conv1D(5, 3)(_sequence(x))))
    ),
    "last_step": lambda x: layers.Flatten()(square(layers.Conv1D(5, SAMPLES)(_sequence(x)))),
    "volumes": lambda x: layers.Flatten()(
        square(layers.Conv3D(5, (1, CHANNELS, 3))(layers.Reshape((1, CHANNELS, SAMPLES, 1))(x)))
    ),
    "deviation": lambda x: layers.Flatten()(_deviation(_row(x))),
}


def _two(x: Any) -> Any:
    return layers.Conv2D(3, (1, 3))(x)


def _deviation(x: Any) -> Any:
    return ops.square(x - ops.mean(x, axis=2, keepdims=True))


@pytest.mark.parametrize("name", only(NETWORKS, "shallow", "multiply"))
def test_products_of_a_value_with_itself(name: str, tmp_path: Path) -> None:
    """Each in a file of its own: one whose shapes contradict each other is written without
    optimization, which would hide the wrong values of the others."""
    keras.utils.set_random_seed(4)
    x = keras.Input((CHANNELS, SAMPLES, 1), name="x")
    values = np.random.default_rng(2).normal(size=(3, CHANNELS, SAMPLES, 1)).astype("float32")
    model, path = keras.Model(x, NETWORKS[name](x)), tmp_path / "m.onnx"
    interface = interface_of(model)
    file = onnx.convert(model, interface, recipe_for("float32"), path)
    actual = open_runner(path, "onnx", file.inputs, file.outputs).run({"x": values})
    expected = model.predict(values, verbose=0)
    np.testing.assert_allclose(
        actual[interface.outputs[0].name], expected, rtol=1e-4, atol=1e-4, err_msg=name
    )
