"""Constants beside transposed tensors: the TFLite converter must keep the order of the operands."""

from collections.abc import Callable
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
from edgeattn_converters.options import ConversionOptions
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
STEPS, FEATURES = 4, 3


def _tensors(*values: Any) -> list[Any]:
    return [ops.convert_to_tensor(value) for value in values]


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "subtract": ops.subtract,
    "divide": ops.divide,
    "divide_no_nan": lambda a, b: tf.math.divide_no_nan(*_tensors(a, b)),
    "power": ops.power,
    "floor_divide": ops.floor_divide,
    "mod": ops.mod,
    "less": ops.less,
    "less_equal": ops.less_equal,
    "greater": ops.greater,
    "greater_equal": ops.greater_equal,
    # Operators that the converter may turn into one of the above.
    "reciprocal": lambda c, t: c * ops.reciprocal(t),
    "add_negative": lambda c, t: c + ops.negative(t),
    "negative_add": lambda c, t: ops.negative(t) + c,
    "subtract_scaled": lambda c, t: c - t * 1.25,
    "subtract_exponential": lambda c, t: c - ops.exp(t),
    "ones_like": lambda c, t: ops.ones_like(t) - t * c,
}
CONSTANTS = {
    "scalar": np.float32(1.7),
    "one_value": np.full((1, 1, 1), 1.7, "float32"),
    "vector": np.linspace(1.1, 2.3, STEPS, dtype="float32"),
    "matrix": np.linspace(1.1, 2.9, FEATURES * STEPS, dtype="float32").reshape(FEATURES, STEPS),
    "all_axes": np.linspace(1.1, 2.9, FEATURES * STEPS, dtype="float32")[::-1].reshape(
        1, FEATURES, STEPS
    ),
}


class Combined(keras.layers.Layer):
    """Applies an operator to a constant and the transposed input, in this order or the other."""

    def __init__(self, operator: str, constant: Any, *, left: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.operator, self.constant, self.left = operator, constant, left

    def call(self, inputs: Any) -> Any:
        transposed = ops.transpose(inputs, (0, 2, 1))
        operands = (self.constant, transposed) if self.left else (transposed, self.constant)
        if operands[0] is transposed and self.operator not in PLAIN:
            operands = operands[::-1]
        return ops.cast(OPERATORS[self.operator](*operands), "float32")

    def compute_output_spec(self, inputs: Any) -> Any:
        return keras.KerasTensor((None, FEATURES, STEPS))


PLAIN = list(OPERATORS)[: list(OPERATORS).index("reciprocal")]


def all_operators(constant: Any, *, left: bool) -> Any:
    """A model with one output for each operator, each of a transpose of its own."""
    inputs = keras.Input((STEPS, FEATURES), name="x")
    outputs = {
        # Equal transposes would be merged, and a shared one is not moved.
        name: Combined(name, constant, left=left, name=name)(inputs * (1 + k / 16))
        for k, name in enumerate(OPERATORS)
    }
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("left", only([True, False], True))
@pytest.mark.parametrize("constant", only(CONSTANTS, "matrix"))
def test_every_operator_as_in_keras(constant: str, left: bool, tmp_path: Path) -> None:
    model = all_operators(CONSTANTS[constant], left=left)
    x = np.random.default_rng(3).uniform(0.4, 3.0, (5, STEPS, FEATURES)).astype("float32")
    expected = model.predict(x, verbose=0)
    interface = interface_of(model)
    for name, converter in CONVERTERS.items():
        path = tmp_path / f"model.{name}"
        file = converter.convert(model, interface, recipe_for("float32"), path)
        actual = open_runner(path, name, file.inputs, file.outputs, as_deployed=True).run({"x": x})
        for operator, values in expected.items():
            np.testing.assert_allclose(
                actual[operator], values, rtol=1e-5, atol=1e-5, err_msg=f"{name}: {operator}"
            )


def test_constant_with_a_row_for_every_sample_of_a_batch(tmp_path: Path) -> None:
    """Such a constant has no axis of size 1 to drop."""
    constant = np.linspace(1.1, 2.9, 2 * FEATURES * STEPS, dtype="float32")
    model = all_operators(constant.reshape(2, FEATURES, STEPS), left=True)
    x = np.random.default_rng(3).uniform(0.4, 3.0, (4, STEPS, FEATURES)).astype("float32")
    expected = model.predict(x, batch_size=2, verbose=0)
    path = tmp_path / "model.tflite"
    options = ConversionOptions(batch=2)
    file = tflite.convert(model, interface_of(model), recipe_for("float32"), path, options=options)
    actual = open_runner(path, "tflite", file.inputs, file.outputs, as_deployed=True).run({"x": x})
    for operator, values in expected.items():
        np.testing.assert_allclose(actual[operator], values, rtol=1e-5, atol=1e-5, err_msg=operator)


def test_no_operator_is_added(tmp_path: Path) -> None:
    inputs = keras.Input((STEPS, FEATURES), name="x")
    model = keras.Model(inputs, 1.0 - keras.layers.Permute((2, 1))(inputs))
    path = tmp_path / "model.tflite"
    file = tflite.convert(model, interface_of(model), recipe_for("float32"), path)
    assert file.achieved["operators"] == {"SUB": 1, "TRANSPOSE": 1}


class Raised(keras.layers.Layer):
    """Adds a constant along the first axis after the batch, which Keras computes as a bias."""

    def call(self, inputs: Any) -> Any:
        shape = (STEPS, *[1] * (len(inputs.shape) - 2))
        return ops.tanh(ops.add(inputs, CONSTANTS["vector"].reshape(shape)))


@pytest.mark.parametrize("format", list(CONVERTERS))
def test_constant_along_the_first_axis(format: str, tmp_path: Path) -> None:
    inputs = keras.Input((STEPS, FEATURES), name="x")
    images = keras.layers.Reshape((STEPS, FEATURES, 1))(inputs)
    model = keras.Model(inputs, {"a": Raised(name="a")(inputs), "b": Raised(name="b")(images)})
    x = np.random.default_rng(3).normal(size=(4, STEPS, FEATURES)).astype("float32")
    path = tmp_path / "model"
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    actual = open_runner(path, format, file.inputs, file.outputs, as_deployed=True).run({"x": x})
    for name, values in model.predict(x, verbose=0).items():
        np.testing.assert_allclose(actual[name], values, atol=1e-5)


class OuterProduct(keras.layers.Layer):
    """A graph that tf2onnx optimizes to a product of shapes that do not fit."""

    def call(self, inputs: Any) -> Any:
        sums = ops.sum(ops.transpose(inputs, (0, 2, 1)) / 1.7, axis=1, keepdims=True)
        squares = ops.square(sums - CONSTANTS["vector"].reshape(1, 1, STEPS))
        return ops.matmul(squares, ops.transpose(squares, (0, 2, 1)))


def test_onnx_without_an_optimization_that_fails(tmp_path: Path) -> None:
    inputs = keras.Input((STEPS, FEATURES), name="x")
    model = keras.Model(inputs, OuterProduct(name="y")(inputs))
    x = np.random.default_rng(3).normal(size=(4, STEPS, FEATURES)).astype("float32")
    path = tmp_path / "model.onnx"
    file = onnx.convert(model, interface_of(model), recipe_for("float32"), path)
    actual = open_runner(path, "onnx", file.inputs, file.outputs, as_deployed=True).run({"x": x})
    np.testing.assert_allclose(actual["y"], model.predict(x, verbose=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("format", list(CONVERTERS))
def test_quotients_of_zero_as_in_keras(format: str, tmp_path: Path) -> None:
    inputs = {name: keras.Input((4,), name=name) for name in "xy"}
    x, y = inputs.values()
    functions = {"divide": ops.divide, "floor_divide": ops.floor_divide}
    model = keras.Model(inputs, {name: f(x, y) for name, f in functions.items()})
    values = {
        "x": np.array([[1.0, -1.0, 7.0, -7.0]], np.float32),
        "y": np.array([[0.0, 0.0, 2.0, 2.0]], np.float32),
    }
    path = tmp_path / "model"
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    actual = open_runner(path, format, file.inputs, file.outputs, as_deployed=True).run(values)
    np.testing.assert_array_equal(actual["divide"], [[np.inf, -np.inf, 3.5, -3.5]])
    np.testing.assert_array_equal(actual["floor_divide"], [[np.inf, -np.inf, 3, -4]])
