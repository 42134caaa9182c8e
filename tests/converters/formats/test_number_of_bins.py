"""bincount, whose number of bins depends on the values unless two arguments fix it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from edgeattn.errors import ConversionError, UnsupportedModelError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

BINS = 5


class Bins(layers.Layer):  # type: ignore[misc]
    def __init__(self, **arguments: int) -> None:
        super().__init__()
        self.arguments = arguments

    def call(self, x: Any) -> Any:
        return tf.math.bincount(x, axis=-1, dtype=tf.float32, **self.arguments)

    def compute_output_shape(self, shape: Any) -> Any:
        return (shape[0], None)


def model_of(*, reshaped: bool, **arguments: int) -> keras.Model:
    x = keras.Input((6,), dtype="int32", name="x")
    counts = Bins(**arguments)(x)
    return keras.Model(x, layers.Reshape((BINS,))(counts) if reshaped else counts)


def test_both_arguments_fix_it(tmp_path: Path) -> None:
    model = model_of(reshaped=True, minlength=BINS, maxlength=BINS)
    file = tflite.convert(model, interface_of(model), recipe_for("float32"), tmp_path / "m")
    runner = open_runner(tmp_path / "m", "tflite", file.inputs, file.outputs)
    (counts,) = runner.run({"x": np.array([[0, 2, 2, 7, 1, 2]], "int32")}).values()
    np.testing.assert_array_equal(counts, [[1, 1, 3, 0, 0]])


def _histogram(of_keras: Any) -> keras.Model:
    x = keras.Input((6,), dtype="int32", name="x")
    return keras.Model(x, of_keras(x))


def test_functions_of_keras_replace_its_bincount(tmp_path: Path) -> None:
    """A functional model of Keras 3 cannot call those of TensorFlow."""
    model = _histogram(lambda x: keras.ops.bincount(x, minlength=BINS))
    with pytest.raises(UnsupportedModelError, match="depends on the input's values") as error:
        interface_of(model)
    hint = str(error.value.hint)
    assert "tf." not in hint
    code = hint.partition(" with ")[2].partition(" for N bins")[0]
    model = _histogram(lambda x: eval(code, {"keras": keras, "x": x, "N": BINS}))
    file = tflite.convert(model, interface_of(model), recipe_for("float32"), tmp_path / "m")
    runner = open_runner(tmp_path / "m", "tflite", file.inputs, file.outputs)
    rows = np.array([[0, 2, 2, 4, 1, 2], [3, 3, 3, 3, 3, 3]], "int32")
    for row in rows:
        (counts,) = runner.run({"x": row[None]}).values()
        np.testing.assert_array_equal(counts, [np.bincount(row, minlength=BINS)])


def test_the_error_names_them(tmp_path: Path) -> None:
    model = model_of(reshaped=True, minlength=BINS)
    with pytest.raises(ConversionError, match="no operator for DenseBincount") as of_format:
        tflite.convert(model, interface_of(model), recipe_for("float32"), tmp_path / "m")
    with pytest.raises(UnsupportedModelError, match="depends on the input's values") as of_shape:
        interface_of(model_of(reshaped=False))
    for error in (of_format, of_shape):
        assert "minlength=N, maxlength=N" in str(error.value.hint)
