"""Axes in functions of TensorFlow that the model computes, in files of tf_keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
X = np.random.default_rng(3).normal(size=(1, 3, 4)).astype("float32")


def of_data(x: Any) -> Any:
    """1 or 2, depending on a value of the input."""
    return tf.cast(x[0, 0, 0] > 9, tf.int32) + 1


Call = Callable[[Any], Any]
CONSTANT: Mapping[str, Call] = {
    "concat of one": lambda x: tf.concat(x, tf.rank(x) - 1),
    "concat of one in a list": lambda x: tf.concat([x], tf.rank(x) - 1),
    "concat of one along any axis": lambda x: tf.concat(x, of_data(x)),
    "concat of one by a size": lambda x: tf.concat(x, tf.shape(x)[1] - 2),
    "concat of one, constant": lambda x: tf.concat(x, tf.constant(1)),
    "concat": lambda x: tf.concat([x, 2 * x], tf.rank(x) - 1),
    "concat, constant": lambda x: tf.concat([x, 2 * x], tf.constant(2)),
    "gather": lambda x: tf.gather(x, [2, 0], axis=tf.rank(x) - 2),
    "reduce_sum": lambda x: tf.reduce_sum(x, axis=tf.rank(x) - 1),
    "reduce_max": lambda x: tf.reduce_max(x, axis=[tf.rank(x) - 1, tf.rank(x) - 2]),
    "reduce_mean": lambda x: tf.reduce_mean(x, axis=tf.size(x[0, 0]) - 3),
    "expand_dims": lambda x: tf.expand_dims(x, tf.rank(x) - 1),
    "argmax": lambda x: tf.argmax(x, axis=tf.rank(x) - 1),
    "cumsum": lambda x: tf.cumsum(x, axis=tf.rank(x) - 1),
    "split": lambda x: tf.split(x, 2, axis=tf.rank(x) - 1)[1],
    "transpose": lambda x: tf.transpose(x, [0, tf.rank(x) - 1, 1]),
    "a number": lambda x: x * tf.cast(tf.rank(x), tf.float32),
}


@pytest.mark.parametrize("suffix", only([".h5", ".keras", ""], ".h5"))
def test_axes_that_are_constants(suffix: str, tmp_path: Path) -> None:
    """Keras 3 could not build the models: "Iterating over a symbolic `tf.Tensor`"."""
    x = tf_keras.Input((3, 4), name="x")
    outputs = [tf.cast(call(x), tf.float32) for call in CONSTANT.values()]
    model = tf_keras.Model(x, outputs)
    model.save(tmp_path / f"m{suffix}")
    loaded = load_model(audit_file(tmp_path / f"m{suffix}"))
    assert not loaded.is_graph
    expected = [np.asarray(value) for value in model(X)]
    for name, value, other in zip(CONSTANT, loaded.model(X), expected, strict=True):
        np.testing.assert_allclose(value, other, atol=1e-6, err_msg=name)
    if suffix:
        return
    for format, converter in CONVERTERS.items():
        path = tmp_path / f"m.{format}"
        interface = interface_of(loaded.model)
        file = converter.convert(loaded.model, interface, recipe_for("float32"), path)
        actual = open_runner(path, format, file.inputs, file.outputs).run({"x": X})
        for name, spec, value in zip(CONSTANT, interface.outputs, expected, strict=True):
            np.testing.assert_allclose(actual[spec.name], value, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("format", only(list(CONVERTERS), "onnx"))
def test_sums_of_large_integers(format: str, tmp_path: Path) -> None:
    """They are exact, also along an axis that the graph computes from the number of axes."""
    x = tf_keras.Input((3, 4), dtype="int64", name="x")
    last = tf.rank(x) - 1
    tf_keras.Model(x, tf.reduce_sum(x, axis=last)).save(tmp_path / "m.h5")
    model, path = load_model(audit_file(tmp_path / "m.h5")).model, tmp_path / "m"
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    values = np.full((1, 3, 4), 2**60 + 1)
    (actual,) = open_runner(path, format, file.inputs, file.outputs).run({"x": values}).values()
    np.testing.assert_array_equal(actual, [[2**62 + 4] * 3])


@pytest.mark.parametrize(
    "call",
    [
        lambda x: tf.reduce_sum(x, axis=of_data(x)),
        lambda x: tf.gather(x, [0, 1], axis=of_data(x)),
        lambda x: tf.expand_dims(x, of_data(x)),
        lambda x: tf.argmax(x, axis=of_data(x)),
    ],
)
def test_axes_of_data_have_a_reason(call: Call, tmp_path: Path) -> None:
    """The error was one about ``Expression.compute_output_spec``."""
    x = tf_keras.Input((3, 4))
    tf_keras.Model(x, call(x)).save(tmp_path / "m.h5")
    with pytest.raises(UnsupportedModelError, match="its axis is computed from the data, and it"):
        load_model(audit_file(tmp_path / "m.h5"))
