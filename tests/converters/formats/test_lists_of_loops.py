"""Lists that loops write, such as the outputs of steps, in TFLite files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS = 6


class Steps(keras.layers.Layer):
    """Writes an element of a list in each step, from the state of the one before."""

    def __init__(self, kind: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = kind

    def call(self, x: Any) -> Any:
        """Return the running sums of the steps, as values, numbers, whole numbers or truths."""
        elements = {
            "values": lambda total: total,
            "numbers": lambda total: tf.reduce_sum(total),
            "int32": lambda total: tf.cast(10 * total, "int32"),
            "int64": lambda total: tf.cast(10 * total, "int64"),
            "bool": lambda total: total > 0,
        }
        element = elements[self.kind]
        first = element(x[:, 0])
        read = tf.TensorArray("float32", STEPS, clear_after_read=False)
        read = read.unstack(tf.transpose(x, (1, 0, 2)))
        written = tf.TensorArray(first.dtype, STEPS, element_shape=first.shape)
        _, _, written = tf.while_loop(
            lambda step, *_: step < STEPS,
            lambda step, total, done: (
                step + 1,
                total + read.read(step),
                done.write(step, element(total + read.read(step))),
            ),
            (0, tf.zeros_like(x[:, 0]), written),
        )
        result = tf.cast(written.stack(), "float32")
        if self.kind == "numbers":
            return tf.reshape(result, (1, 1, STEPS))
        return tf.transpose(result, (1, 0, 2))


KINDS = ("values", "numbers", "int32", "int64", "bool")


@pytest.mark.parametrize("kind", only(KINDS, "values"))
def test_results_of_loops_have_memory_before_the_first_call(kind: str, tmp_path: Path) -> None:
    """XNNPACK computes wrong results, some times that a file is loaded, if calls allocate it."""
    inputs = keras.Input((STEPS, 3), name="x")
    model = keras.Model(inputs, keras.layers.Dense(2, name="y")(Steps(kind)(inputs)))
    path = tmp_path / "m.tflite"
    file = tflite.convert(model, interface_of(model), recipe_for("float32"), path)
    interpreter = Interpreter(
        str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    interpreter.allocate_tensors()
    [output] = interpreter.get_output_details()
    interpreter.get_tensor(output["index"])  # raises an error for a tensor without memory
    x = np.random.default_rng(4).normal(size=(5, STEPS, 3)).astype("float32")
    actual = open_runner(path, "tflite", file.inputs, file.outputs).run({"x": x})["y"]
    rows = [np.asarray(model(row[None])) for row in x]
    np.testing.assert_allclose(actual, np.concatenate(rows), rtol=1e-5, atol=1e-5)


def mapped(x: Any, factors: Any) -> Any:
    """Products of each sample in a loop, whose list has elements of an unknown shape."""
    return tf.map_fn(lambda sample: tf.matmul(factors, sample), x)


@pytest.mark.parametrize("format", only(["tflite", "onnx"], "tflite"))
def test_lists_of_the_same_length_have_elements_of_their_own_shapes(
    format: str, tmp_path: Path
) -> None:
    """As in two layers of capsules. The converter of TFLite made one list of both."""
    generator = np.random.default_rng(8)
    first, second = (
        generator.normal(size=shape).astype("float32") for shape in ((7, STEPS), (2, 7))
    )

    class Maps(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return mapped(tf.tanh(mapped(x, first)), second)

        def compute_output_shape(self, shape: Any) -> Any:
            return (shape[0], 2, shape[2])

    inputs = keras.Input((STEPS, 3), name="x")
    model = keras.Model(inputs, Maps(name="y")(inputs))
    converter = {"tflite": tflite, "onnx": onnx}[format]
    path = tmp_path / f"m.{format}"
    file = converter.convert(model, interface_of(model), recipe_for("float32"), path)
    x = generator.normal(size=(5, STEPS, 3)).astype("float32")
    actual = open_runner(path, format, file.inputs, file.outputs).run({"x": x})["y"]
    np.testing.assert_allclose(actual, second @ np.tanh(first @ x), rtol=1e-5, atol=1e-5)
