"""What rounding in float32 costs Keras itself, and float32 artifacts that differ by as much."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import pytest
from keras import ops
from onnx import TensorProto, helper, numpy_helper

from edgeattn.cli.conversion import conversion_lines
from edgeattn_converters import convert
from edgeattn_converters.options import ConversionOptions, ModelSource
from edgeattn_converters.reference.arithmetic import rounded_function
from edgeattn_converters.reference.keras_outputs import predict
from edgeattn_converters.rounding import float32_costs
from edgeattn_converters.tracing.trace import interface_of

SHAPE = (16, 6)
X = np.random.default_rng(8).normal(size=(4, *SHAPE)).astype("float32")
# What Keras computes, and the same formula in float64 from the same float32 numbers.
UNSTABLE: dict[str, tuple[Callable[[Any], Any], Callable[[np.ndarray], np.ndarray]]] = {
    "difference of large numbers": (
        lambda x: (x + 703.3 * ops.square(x)) - 703.3 * ops.square(x),
        lambda x: x,
    ),
    "remainder of a large quotient": (
        lambda x: ops.mod(x * 300.7, 0.0171),
        lambda x: np.mod(x * float(np.float32(300.7)), float(np.float32(0.0171))),
    ),
    "softmax of large scores": (
        lambda x: ops.softmax(x + 5555.5, axis=1),
        lambda x: _softmax(x + 5555.5),
    ),
}
# Averages of images consist of thousands of additions, each of which rounds.
IMAGES = np.random.default_rng(9).uniform(1, 2, (4, 112 * 112, 1)).astype("float32")
ADDITIONS: dict[str, tuple[Callable[[Any], Any], Callable[[np.ndarray], np.ndarray]]] = {
    "average": (
        lambda x: 100.0 * (ops.mean(x, axis=1) - 1.5),
        lambda x: 100.0 * (x.mean(1) - 1.5),
    ),
    "sum": (
        lambda x: ops.sum(x, axis=1) - 18816.0,
        lambda x: x.sum(1) - 18816.0,
    ),
    "product of matrices": (
        lambda x: ops.matmul(ops.transpose(x, (0, 2, 1)), x) - 29000.0,
        lambda x: x.transpose(0, 2, 1) @ x - 29000.0,
    ),
}


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def costs_of(model: Any, x: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """The costs of the only output, and that output of Keras."""
    interface = interface_of(model)
    (spec,) = interface.inputs
    inputs = {spec.name: x}
    expected = predict(model, interface, inputs)
    run = rounded_function(model, interface, attention=False)
    costs = float32_costs(interface, run, inputs, expected, ordinary=len(x))
    ((name, values),) = costs.items()
    return values, expected[name]


@pytest.mark.parametrize("name", UNSTABLE)
def test_the_cost_covers_the_error_of_keras(name: str) -> None:
    """Keras differs from the exact result by more than the tolerance, but not by more than this."""
    _check_cost(*UNSTABLE[name], X[..., :1])


@pytest.mark.parametrize("name", ADDITIONS)
def test_the_cost_covers_that_of_many_additions(name: str) -> None:
    _check_cost(*ADDITIONS[name], IMAGES)


def _check_cost(
    function: Callable[[Any], Any], exact: Callable[[np.ndarray], np.ndarray], x: np.ndarray
) -> None:
    inputs = keras.Input(x.shape[1:])
    costs, actual = costs_of(keras.Model(inputs, function(inputs)), x)
    error = np.abs(actual - exact(x.astype(np.float64)))
    tolerance = 1e-5 + 1e-4 * np.abs(actual)
    largest = float((error / tolerance).max())
    assert costs["tolerance_ratio"] >= largest > 0.3
    assert costs["tolerance_ratio"] > 1


def test_a_convolution_rounds_as_the_product_of_its_patches() -> None:
    """A kernel over the whole image is a product of matrices, with the same additions."""
    x = np.random.default_rng(2).uniform(1, 2, (4, 40, 40, 1)).astype("float32")
    kernel = np.random.default_rng(3).uniform(1, 2, (40, 40, 1, 3)).astype("float32")
    inputs = keras.Input(x.shape[1:])
    convolved = ops.reshape(ops.conv(inputs, kernel), (-1, 3)) - 3600.0
    multiplied = ops.matmul(ops.reshape(inputs, (-1, 1600)), kernel.reshape(1600, 3)) - 3600.0
    ratios = [
        costs_of(keras.Model(inputs, outputs), x)[0]["tolerance_ratio"]
        for outputs in (convolved, multiplied)
    ]
    assert min(ratios) > 1
    assert max(ratios) < 3 * min(ratios)


def test_rounding_costs_little_without_cancellation() -> None:
    inputs = keras.Input(SHAPE)
    hidden = keras.layers.Dense(8, activation="tanh")(inputs)
    model = keras.Model(inputs, keras.layers.LayerNormalization()(hidden))
    assert costs_of(model, X)[0]["tolerance_ratio"] < 0.5


def test_the_cost_covers_a_closed_gate_of_onnxruntime() -> None:
    """The reset gate of a GRU with a large state is 0 in Keras, and about 2.4e-7 in its runtime."""
    x = X[:, :1, :1]
    large = 250.0
    inputs = keras.Input(x.shape[1:])
    reset = ops.sigmoid(inputs - 60.0)
    costs, expected = costs_of(keras.Model(inputs, ops.tanh(0.01 + reset * large)), x)
    weights, biases = np.zeros((1, 3, 1), "float32"), np.zeros((1, 6), "float32")
    weights[0, 1] = 1.0
    biases[0, [0, 1, 2, 5]] = -300.0, -60.0, 0.01, large  # update, reset, and both of the state
    tensors = {"w": weights, "r": np.zeros_like(weights), "b": biases}
    gru = helper.make_node("GRU", ["x", *tensors], ["", "y"], hidden_size=1, linear_before_reset=1)
    graph = helper.make_graph(
        [gru],
        "gru",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, len(x), 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = onnxruntime.InferenceSession(file.SerializeToString())
    (actual,) = session.run(None, {"x": x.reshape(1, -1, 1)})
    ratio = np.abs(actual.ravel() - expected.ravel()) / (1e-5 + 1e-4 * np.abs(expected.ravel()))
    assert 1 < ratio.max() <= 1 + costs["tolerance_ratio"]


def test_counts_and_masks_are_exact() -> None:
    inputs = keras.Input(SHAPE)
    masked = ops.cast(inputs > 0, "float32") * 3.0 - 1e9 * ops.cast(inputs < 0, "float32")
    total = ops.sum(ops.matmul(masked, ops.ones((SHAPE[-1], 2))), axis=-1)
    model = keras.Model(inputs, ops.cast(total / 4.0, "float32"))
    assert costs_of(model, X)[0]["tolerance_ratio"] == 0


@pytest.mark.long
def test_artifacts_that_differ_by_rounding_are_right(tmp_path: Path) -> None:
    inputs = keras.Input((12, 1), name="x")
    layers = keras.layers
    hidden = inputs
    for _ in range(2):
        attended = layers.MultiHeadAttention(2, 4)(hidden, hidden)
        hidden = hidden + layers.LayerNormalization(epsilon=1e-6)(attended)
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(hidden)))
    generator = np.random.default_rng(23)
    for weight in model.weights:
        weight.assign(generator.normal(0, 0.8, weight.shape))
    model.save(tmp_path / "series.keras")
    np.save(tmp_path / "x.npy", generator.normal(size=(12, 12, 1)).astype("float32"))
    result = convert(
        ModelSource(tmp_path / "series.keras", samples=tmp_path / "x.npy"),
        options=ConversionOptions(schemes=["float32"]),
    )
    assert [item.verdict for item in result.report.artifacts] == ["pass"] * 2
    assert [item.conversion for item in result.report.artifacts] == ["right"] * 2
    for item in result.report.artifacts:
        assert {check.metric for check in item.explained} <= {"max_abs_error", "tolerance_ratio"}
        assert all(check.value > check.limit for check in item.explained if check.limit)
    text = "\n".join(conversion_lines(result, verbose=False))
    assert "onnx float32: converted right; tolerance_ratio of dense" in text
    assert "and rounding in float32 alone gives" in text
