"""Layers of the user that select one of several branches by an index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.reference.plausible_inputs import plausible_inputs
from edgeattn_converters.tracing.trace import interface_of

X = np.array([[1.0, 2.0, 3.0]], np.float32)
# By the output, and by the index: the last branch is taken beyond the last one, and Keras takes the
# first one below the first one, but TensorFlow the last one.
EXPECTED = {
    "keras": {-2: 0 * X, 0: 0 * X, 1: X / 2, 2: X * X, 7: X * X},
    "pair": {-2: X + 1, 0: X + 1, 1: X * 10, 2: X - 5, 7: X - 5},
    "tensorflow": {-2: -X, 0: 3 * X, 1: 4 * X, 2: -X, 7: -X},
}


def switches(x: Any, index: Any) -> dict[str, Any]:
    one, two = ops.switch(
        index,
        [lambda t: (t, t * 0 + 1), lambda t: (t * 9, t), lambda t: (t, t * 0 - 5)],
        x,
    )
    return {
        "keras": ops.switch(index, [lambda t: t * 0.0, lambda t: t / 2, lambda t: t * t], x),
        "pair": one + two,
        "tensorflow": tf.switch_case(index, {1: lambda: 4 * x, 0: lambda: 3 * x}, lambda: -x),
    }


class Switches(keras.layers.Layer):
    def call(self, x: Any, index: Any) -> Any:
        return switches(x, index[0])

    def compute_output_spec(self, x: Any, index: Any) -> Any:
        return {name: keras.KerasTensor(x.shape, name=name) for name in EXPECTED}


def own_layer(_: Path) -> keras.Model:
    x, index = keras.Input((3,), name="x"), keras.Input((), name="index", dtype="int32")
    return keras.Model([x, index], Switches()(x, index))


def saved_model(folder: Path) -> keras.Model:
    """A graph in which each switch is one operation."""
    module = tf.Module()
    module.w = tf.Variable(0.0)
    signature = [tf.TensorSpec((None, 3), name="x"), tf.TensorSpec((None,), tf.int32, "index")]
    module.serve = tf.function(
        lambda x, index: {name: value + module.w for name, value in switches(x, index[0]).items()},
        input_signature=signature,
        autograph=False,
    )
    tf.saved_model.save(module, str(folder / "saved"), signatures=module.serve)
    return load_model(audit_file(folder / "saved")).model


@pytest.mark.parametrize("source", only([own_layer, saved_model], own_layer))
def test_switches(source: Any, tmp_path: Path) -> None:
    model = source(tmp_path)
    interface = interface_of(model)
    assert {spec.name for spec in interface.outputs} == set(EXPECTED)
    generated = plausible_inputs(model, interface, np.random.default_rng(0))["index"]
    assert set(generated.tolist()) == {0, 1, 2}
    for name, module in (("tflite", tflite), ("onnx", onnx)):
        path = tmp_path / f"m.{name}"
        result = module.convert(model, interface, recipe_for("float32"), path)
        runner = open_runner(path, name, result.inputs, result.outputs)
        for index in (-2, 0, 1, 2, 7):
            outputs = runner.run({"x": X, "index": np.array([index], np.int32)})
            for output, expected in EXPECTED.items():
                message = f"{name} {output} {index}"
                np.testing.assert_allclose(outputs[output], expected[index], err_msg=message)
