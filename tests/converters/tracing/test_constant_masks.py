"""Selections whose positions are constants, although TensorFlow infers no shape for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras import ops

from edgeattn.errors import UnsupportedModelError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
MASK = np.array([True, False, True, True, False, True, False])
# Larger constants enter a function as placeholders.
LARGE = tf.constant(np.arange(7 * 30) % 70 == 1)
COUNTS = [1, 2, 0, 1, 3, 1, 0]


def _of_unique(position: int) -> Callable[[Any], Any]:
    return lambda x: tf.gather(x, tf.unique(tf.constant([3, 1, 3, 0]))[position], axis=1)


# Each with the positions that it selects from the rows.
SELECTIONS: Mapping[str, tuple[Callable[[Any], Any], list[int]]] = {
    "mask": (lambda x: tf.boolean_mask(x, MASK, axis=1), [0, 2, 3, 5]),
    "where": (lambda x: tf.gather(x, tf.where(tf.constant(MASK))[:, 0], axis=1), [0, 2, 3, 5]),
    "unique": (_of_unique(0), [3, 1, 0]),
    "positions_of_unique": (_of_unique(1), [0, 1, 0, 2]),
    "computed_mask": (lambda x: tf.boolean_mask(x, tf.range(7) % 2 == 0, axis=1), [0, 2, 4, 6]),
    "of_shape": (
        lambda x: tf.boolean_mask(x, tf.range(tf.shape(x)[1]) % 3 == 0, axis=1),
        [0, 3, 6],
    ),
    "nonzero": (lambda x: ops.take(x, ops.nonzero(MASK)[0], axis=1), [0, 2, 3, 5]),
    "repeat": (lambda x: ops.repeat(x, COUNTS, axis=1), [0, 1, 1, 3, 4, 4, 4, 5]),
    "large": (lambda x: tf.boolean_mask(tf.tile(x, [1, 30, 1]), LARGE, axis=1), [1, 1, 1]),
}


class Selection(keras.layers.Layer):
    """A selection as a layer."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def call(self, x: Any) -> Any:
        return self.function(x)


class StoredMask(keras.layers.Layer):
    """A selection with a mask that is a variable."""

    def build(self, shape: Any) -> None:
        self.mask = self.add_weight(
            shape=(7,), dtype="bool", initializer=lambda *_, **__: tf.constant(MASK)
        )

    def call(self, x: Any) -> Any:
        return tf.boolean_mask(x, self.mask, axis=1)


@pytest.mark.long
@pytest.mark.parametrize("format", CONVERTERS)
def test_constant_selections_convert(format: str, tmp_path: Path) -> None:
    inputs = keras.Input((7, 4), name="x")
    outputs = {name: Selection(function)(inputs) for name, (function, _) in SELECTIONS.items()}
    model = keras.Model(inputs, {**outputs, "variable": StoredMask()(inputs)})
    path = tmp_path / f"model.{format}"
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    x = np.random.default_rng(0).normal(size=(1, 7, 4)).astype("float32")
    actual = open_runner(path, format, file.inputs, file.outputs).run({"x": x})
    expected = {name: positions for name, (_, positions) in SELECTIONS.items()}
    for name, positions in {**expected, "variable": expected["mask"]}.items():
        np.testing.assert_array_equal(actual[name], x[:, positions], err_msg=name)


def test_selections_by_values_of_the_input_are_refused() -> None:
    inputs = keras.Input((7, 4), name="x")
    layer = Selection(lambda x: tf.transpose(tf.boolean_mask(tf.transpose(x), x[0, :, 0] > 0, 1)))
    with pytest.raises(UnsupportedModelError, match="depends on the input's values"):
        interface_of(keras.Model(inputs, layer(inputs)))


def test_constant_masks_of_stored_models(tmp_path: Path) -> None:
    """They have a known shape in a graph of tf_keras, and in an exported one."""
    inputs = tf_keras.Input((7, 4), name="x")
    model = tf_keras.Model(inputs, tf.boolean_mask(inputs, MASK, axis=1))
    model.save(tmp_path / "model.h5")
    inputs = keras.Input((7, 4), name="x")
    layer = Selection(lambda x: tf.boolean_mask(x, MASK, axis=1))
    keras.Model(inputs, layer(inputs)).export(tmp_path / "exported", verbose=False)
    for name in ("model.h5", "exported"):
        loaded = load_model(audit_file(tmp_path / name)).model
        assert interface_of(loaded).outputs[0].shape == (None, 4, 4)
