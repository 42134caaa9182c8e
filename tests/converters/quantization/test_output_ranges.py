"""int8 outputs beyond those of the calibration samples, compared with Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from onnx import TensorProto, helper
from quantized_models import CONVERTERS, tflite_of

from edgeattn.runners import open_runner
from edgeattn.tensors import Tensors, TensorSpec
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.output_ranges import ranges_at_ends, wide_onnx_ranges
from edgeattn_converters.quantization.quantized_model import ModelIO
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

FEATURES, OUTPUTS = 128, 6
# Of the largest output of calibration; a part of the samples measures a smaller one.
BEYOND = 1.6


@pytest.fixture(scope="module")
def model() -> Any:
    """Amounts, others that are moved, rescaled or rectified, and a probability, whose bounds are
    known."""
    keras.utils.set_random_seed(4)
    inputs = keras.Input((FEATURES,), name="x")

    def dense(name: str, activation: str | None = None) -> Any:
        # A bias is an operator of its own in ONNX.
        return layers.Dense(
            OUTPUTS, activation, name=name, bias_initializer=keras.initializers.Constant(0.1)
        )(inputs)

    amounts = dense("amounts")
    table = layers.Reshape((2, OUTPUTS // 2), name="table")(dense("values"))
    # Of the target's mean and deviation.
    rescaled = layers.Rescaling(12.0, offset=1.5, name="rescaled")(dense("scores"))
    by_output = dense("shares") * np.float32([2, 1.9, 2, 1.9, 2, 1.9])
    by_output = layers.Identity(name="by_output")(by_output - 0.25)
    positive = dense("positive", "relu")
    share = dense("share", "sigmoid")
    return keras.Model(inputs, [amounts, table, rescaled, by_output, positive, share])


@pytest.fixture(scope="module")
def samples() -> Tensors:
    generator = np.random.default_rng(9)
    return {"x": generator.uniform(-1, 1, (64, FEATURES)).astype("float32")}


def beyond(model: Any, samples: Tensors) -> Tensors:
    """Inputs in the range of the samples, for each output of a layer one with a larger value."""
    rows = []
    for name in ("amounts", "values", "scores", "shares", "positive"):
        layer = model.get_layer(name)
        kernel = layer.get_weights()[0]
        largest = np.abs(layer(samples["x"])).max()
        for weights in kernel.T:
            rows.append(np.sign(weights) * BEYOND * largest / np.abs(weights).sum())
    inputs = np.array(rows, np.float32)
    assert np.abs(inputs).max() <= 1
    return {"x": inputs}


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize("integer_io", [False, True])
def test_outputs_have_room(
    model: Any, samples: Tensors, format: str, integer_io: bool, tmp_path: Path
) -> None:
    converted = CONVERTERS[format].convert(
        model,
        interface_of(model),
        recipe_for("int8"),
        tmp_path / "model",
        quantization=QuantizationOptions(integer_io=integer_io),
        samples=samples,
    )
    inputs = beyond(model, samples)
    runner = open_runner(tmp_path / "model", format, converted.inputs, converted.outputs)
    actual = runner.run(inputs)
    expected = dict(zip(model.output_names, model(inputs["x"]), strict=True))
    for name in ("amounts", "table", "rescaled", "by_output", "positive"):
        want = np.asarray(expected[name])
        # A step of twice the range is 1/64 of the largest value, and the weights are rounded too.
        np.testing.assert_allclose(actual[name], want, atol=np.abs(want).max() / 32)
    # The bounds of a probability are known: no part of the 255 steps is spent on others.
    share = runner.run(samples)["share"]
    assert np.diff(np.unique(share)).min() <= 1.001 / 255
    np.testing.assert_allclose(share, model(samples["x"])[-1], atol=0.02)


def specs(*names: str) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, (1, 4), "float32") for name in names)


def test_onnx_outputs_with_bounds() -> None:
    """They do not depend on the samples; a value that may be any has twice its range."""
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["share"]),
        helper.make_node("Tanh", ["x"], ["sign"]),
        helper.make_node("Concat", ["share", "sign"], ["both"], axis=1),
        helper.make_node("Concat", ["share", "x"], ["mixed"], axis=1),
        helper.make_node("Exp", ["x"], ["map"]),
        helper.make_node("Exp", ["x"], ["amount"]),
    ]
    names = ("share", "both", "mixed", "map", "amount")
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4])
        for name in ("x", *names)
    }
    graph = helper.make_graph(nodes, "g", [values["x"]], [values[name] for name in names])
    io = ModelIO(specs("x"), specs(*names), ("map",))
    measured = dict.fromkeys(("x", *names), (0.25, 0.5))
    ranges = wide_onnx_ranges(helper.make_model(graph), measured, io)
    assert ranges == {
        "x": (0.25, 0.5),
        "share": (0, 1),
        "both": (-1, 1),
        "mixed": (0.25, 0.5),
        "map": (0, 1),
        "amount": (0.5, 1),
    }


@pytest.mark.parametrize(
    ("measured", "bounds"),
    [
        ((0.25, 1.0001), (0, 1)),
        ((0.0, 1.25), (0, 2.5)),  # a sum of two softmaxes
        ((-0.25, 0.75), (-0.5, 1.5)),  # a difference
    ],
)
def test_maps_of_changed_weights_have_room(measured: Any, bounds: Any) -> None:
    shape = [1, 4]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "map"))
    graph = helper.make_graph([helper.make_node("Exp", ["x"], ["map"])], "g", [x], [y])
    io = ModelIO(specs("x"), specs("map"), ("map",))
    found = wide_onnx_ranges(helper.make_model(graph), {"map": measured}, io)
    assert found == {"map": bounds}
    file = TFLiteFile(tflite_of(lambda x: x + 1, (1, 4)))
    (output,) = map(int, file.main.outputs)
    assert ranges_at_ends(file, {output: measured}, file.main, io) == {output: bounds}


def shares_and_sum(x: Any) -> Any:
    import tensorflow as tf

    return tf.transpose(tf.nn.softmax(x)), x + 1


def test_tflite_outputs_with_bounds() -> None:
    file = TFLiteFile(tflite_of(shares_and_sum, (1, 4)))
    indices = list(map(int, (*file.main.inputs, *file.main.outputs)))
    makers = {int(i): file.kind(item) for item in file.main.operators for i in item.outputs}
    io = ModelIO(specs("x"), specs("a", "b"), ())
    found = ranges_at_ends(file, dict.fromkeys(indices, (0.25, 0.5)), file.main, io)
    expected = {"ADD": (0.25, 0.5)}
    for index in indices[1:]:
        assert found[index] == expected.get(makers[index], (0, 1))


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_outputs_that_a_relu_reads_keep_their_negative_values(
    samples: Tensors, format: str, tmp_path: Path
) -> None:
    """onnxruntime's quantizer limits what only a ReLU reads to the range of the result."""
    keras.utils.set_random_seed(4)
    inputs = keras.Input((FEATURES,), name="x")
    change = layers.Dense(OUTPUTS, name="change")(inputs)
    fixed = layers.Dense(2, bias_initializer=keras.initializers.Constant(-3.3), name="fixed")
    outputs = {
        "change": change,
        "growth": layers.ReLU(name="growth")(change),
        "fixed": fixed(inputs),
        "dead": layers.ReLU(name="dead")(fixed.output),
    }
    model = keras.Model(inputs, outputs)
    fixed.kernel.assign(np.zeros((FEATURES, 2)))
    converted = CONVERTERS[format].convert(
        model, interface_of(model), recipe_for("int8"), tmp_path / "model", samples=samples
    )
    runner = open_runner(tmp_path / "model", format, converted.inputs, converted.outputs)
    actual, expected = runner.run(samples), model.predict(samples["x"], verbose=0)
    for name, want in expected.items():
        np.testing.assert_allclose(actual[name], want, atol=0.05 * np.abs(want).max())
