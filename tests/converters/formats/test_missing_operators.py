"""Errors for operations that a format lacks name the layers that need them."""

from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf

from edgeattn.errors import ConversionError
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}


class Digamma(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return tf.math.digamma(x)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


class Cell(keras.layers.Layer):
    state_size = 4

    def call(self, x: Any, states: Any) -> Any:
        return tf.math.digamma(x) + states[0], states


def nested() -> Any:
    """A model with operations in layers, in a nested model, and in the loop of a layer."""
    x = keras.Input((3, 4))
    y = Digamma(name="first")(x)
    y = keras.layers.TimeDistributed(Digamma(), name="steps")(y)
    y = keras.layers.Lambda(lambda x: tf.math.ndtri(x), name="other")(y)
    y = keras.Sequential([keras.Input((3, 4)), Digamma(name="inner")], name="nested_model")(y)
    y = keras.layers.RNN(Cell(name="cell"), return_sequences=True, name="recurrent")(y)
    return keras.Model(x, keras.layers.Dense(2)(y))


@pytest.mark.parametrize("format", CONVERTERS)
def test_errors_name_layers(format: str, tmp_path: Path) -> None:
    model = nested()
    with pytest.raises(ConversionError, match="has no operator for") as caught:
        CONVERTERS[format].convert(
            model, interface_of(model), recipe_for("float32"), tmp_path / "model"
        )
    layers = "'first', 'steps', 'inner', 'cell'"
    assert f"for Digamma (layers {layers}), Ndtri (layer 'other')." in str(caught.value)
