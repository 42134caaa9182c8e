"""Layers whose ONNX operators need the rank of what they read, behind the last output of a loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras
from recurrent_models import randomise

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS = 3
SHAPES = {1: (6,), 2: (6, 5), 3: (4, 5, 3)}


def recurrent(module: Any, dimensions: int, x: Any) -> Any:
    layer = getattr(module.layers, f"ConvLSTM{dimensions}D")
    return layer(3, 2, padding="same", dropout=0.2)(x)


def images(module: Any, dimensions: int) -> Any:
    layers = module.layers
    x = module.Input((STEPS, *SHAPES[dimensions], 2), name="x")
    last = recurrent(module, dimensions, x)
    kind = f"{dimensions}D"
    outputs = [
        getattr(layers, f"Conv{kind}")(2, 1, name="convolved")(last),
        getattr(layers, f"MaxPooling{kind}")(2, name="pooled")(last),
        layers.BatchNormalization(name="normalized")(last),
        getattr(layers, f"UpSampling{kind}")(2, name="repeated")(last),
    ]
    if dimensions > 1:
        outputs.append(getattr(layers, f"Conv{kind}Transpose")(2, 2, name="transposed")(last))
    return module.Model(x, outputs)


def repeated_convolutions(module: Any) -> Any:
    layers = module.layers
    x = module.Input((STEPS, *SHAPES[2], 2), name="x")
    hidden = layers.TimeDistributed(layers.Conv2D(3, 3, padding="same", activation="relu"))(x)
    return module.Model(x, layers.Conv2D(1, 1, name="frame")(recurrent(module, 2, hidden)))


@pytest.mark.parametrize(
    ("module", "dimensions"),
    [
        (keras, 2),
        pytest.param(tf_keras, 2, marks=pytest.mark.long),
        pytest.param(keras, 1, marks=pytest.mark.long),
        pytest.param(keras, 3, marks=pytest.mark.long),
    ],
)
def test_layers_of_images_behind_convlstm(module: Any, dimensions: int, tmp_path: Path) -> None:
    _check(images(module, dimensions), SHAPES[dimensions], tmp_path)


@pytest.mark.long
def test_convolutions_of_every_step_before_and_one_behind(tmp_path: Path) -> None:
    _check(repeated_convolutions(keras), SHAPES[2], tmp_path)


def _check(model: Any, shape: tuple[int, ...], folder: Path) -> None:
    randomise(model)
    for layer in model.layers:
        if hasattr(layer, "moving_variance"):
            layer.moving_variance.assign(np.abs(layer.moving_variance.numpy()) + 0.5)
    x = np.random.default_rng(3).normal(size=(2, STEPS, *shape, 2)).astype("float32")
    expected = model.predict(x, verbose=0)
    interface = interface_of(model)
    file = onnx.convert(model, interface, recipe_for("float32"), folder / "model.onnx")
    actual = open_runner(folder / "model.onnx", "onnx", file.inputs, file.outputs).run({"x": x})
    values = expected if isinstance(expected, list) else [expected]
    for spec, value in zip(interface.outputs, values, strict=True):
        assert np.isfinite(value).all()
        np.testing.assert_allclose(actual[spec.name], value, atol=1e-5, err_msg=spec.name)
