"""Softmax over several axes at once: one operator, with the numbers of Keras."""

from __future__ import annotations

import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tf_keras
from long_parameters import only
from recurrent_models import Converted, randomise

BOTH = ("tflite", "onnx")
ROWS, SHAPE = 4, (3, 5, 4)
AXES = {"last": (2, 3), "negative": (-1, -2), "first": (1, 2), "apart": [1, 3], "all": (1, 2, 3)}
X = np.random.default_rng(6).standard_normal((ROWS, *SHAPE)).astype(np.float32) * 3


def _converted(model, folder: Path, *, attention: bool = False) -> Converted:
    converted = Converted(model, folder, BOTH, attention=attention)
    for format, name in (("tflite", "SOFTMAX"), ("onnx", "Softmax")):
        operators = converted.achieved[format]["operators"]
        assert operators[name]
        assert not {"LOG", "EXP", "Log", "Exp", "ReduceLogSumExp"} & set(operators), operators
    return converted


@pytest.mark.parametrize("module", only([keras, tf_keras], keras))
def test_softmax_layers(module, tmp_path: Path) -> None:
    x = module.Input(SHAPE, name="x")
    outputs = [module.layers.Softmax(axis, name=name)(x) for name, axis in AXES.items()]
    converted = _converted(module.Model(x, outputs), tmp_path)
    assert not converted.errors({"x": X})


def test_masks_of_softmax_layers(tmp_path: Path) -> None:
    """A row without a real key is zero, as in Keras."""
    x = keras.Input(SHAPE, name="x")
    mask = keras.Input(SHAPE, dtype="bool", name="mask")
    keys = keras.Input((1, *SHAPE[1:2], 1), dtype="bool", name="keys")
    outputs = [keras.layers.Softmax(axis, name=name)(x, mask=mask) for name, axis in AXES.items()]
    outputs.append(keras.layers.Softmax((2, 3), name="broadcast")(x, mask=keys))
    converted = _converted(keras.Model([x, mask, keys], outputs), tmp_path)
    real = np.random.default_rng(7).random((ROWS, *SHAPE)) < 0.6
    real[0] = False
    real[1, 0] = False
    inputs = {"x": X, "mask": real, "keys": real[:, :1, :, :1]}
    assert not converted.errors(inputs)


@pytest.mark.long
@pytest.mark.parametrize("axes", [(1, 2), (2, 3), (1, 3)])
def test_attention_over_several_axes(axes: tuple[int, ...], tmp_path: Path) -> None:
    x = keras.Input((2, *SHAPE), name="x")
    heads = keras.layers.MultiHeadAttention(2, 3, attention_axes=axes, name="heads")
    model = randomise(keras.Model(x, heads(x, x)))
    converted = _converted(model, tmp_path, attention=True)
    data = np.random.default_rng(8).standard_normal((ROWS, 2, *SHAPE)).astype(np.float32)
    assert not converted.errors({"x": data})
    _, weights = heads(data, data, return_attention_scores=True)
    # The softmax of Keras is over the last two axes, of which the map has one.
    sizes = np.shape(weights)
    expected = np.reshape(weights, (*sizes[:-4], math.prod(sizes[-4:-2]), math.prod(sizes[-2:])))
    for runner in converted.runners.values():
        actual = runner.run({"x": data})["attention/heads"]
        np.testing.assert_allclose(actual.sum(-1), 1.0, atol=1e-5)
        np.testing.assert_allclose(actual, expected, atol=1e-5)
