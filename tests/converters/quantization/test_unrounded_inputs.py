"""Operators that stay float32 read float values as they are, also beyond the measured ranges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import pytest
from keras import layers
from onnx import TensorProto, helper, numpy_helper
from quantized_models import CONVERTERS, filled

from edgeattn.runners import open_runner
from edgeattn.tensors import TensorSpec
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.onnx_static import quantize_activations
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES = 4, 32


def attention_beside_integers() -> Any:
    """Attention reads the same values as a product with large weights, which becomes integer."""
    x = keras.Input((STEPS, FEATURES), name="x")
    context = layers.Attention(name="look")([x, x])
    joined = layers.Concatenate()([context, x])
    return keras.Model(x, layers.Dense(FEATURES, name="y")(joined))


def attention_of_states() -> Any:
    """The same for the outputs of another layer, which are an output of the model, too."""
    x = keras.Input((STEPS, FEATURES), name="x")
    states = layers.Activation("softsign", name="states")(x)
    context = layers.Attention(name="look", use_scale=True)([states, states])
    joined = layers.Concatenate()([context, states])
    return keras.Model(x, [layers.Dense(FEATURES, name="y")(joined), states])


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return np.random.default_rng(3).normal(0, 0.1, (40, STEPS, FEATURES)).astype("float32")


@pytest.mark.parametrize(
    ("build", "format"),
    [
        (attention_beside_integers, "tflite"),
        pytest.param(attention_beside_integers, "onnx", marks=pytest.mark.long),
        pytest.param(attention_of_states, "tflite", marks=pytest.mark.long),
        (attention_of_states, "onnx"),
    ],
)
def test_float_attention_beyond_the_measured_ranges(
    build: Any, format: str, samples: np.ndarray, tmp_path: Path
) -> None:
    model = filled(build())
    large = 10 * samples[:5]
    _, weights = model.get_layer("look")(
        [large if build is attention_beside_integers else large / (1 + np.abs(large))] * 2,
        return_attention_scores=True,
    )
    expected = keras.ops.convert_to_numpy(weights)
    for scheme in ("int8", "int16x8"):
        path = tmp_path / scheme
        file = CONVERTERS[format].convert(
            model,
            interface_of(model),
            recipe_for(scheme),
            path,
            quantization=QuantizationOptions(attention_precision="float32"),
            samples={"x": samples},
        )
        runner = open_runner(path, format, file.inputs, file.outputs)
        actual = runner.run({"x": large})
        (name,) = file.attention
        np.testing.assert_allclose(
            actual[name].reshape(expected.shape), expected, atol=1e-5, err_msg=scheme
        )
        if "states" in actual:
            # The output is that of a float operator.
            np.testing.assert_allclose(actual["states"], large / (1 + np.abs(large)), atol=1e-6)


WEIGHTS = np.random.default_rng(5).normal(size=(2, 6, 6)).astype("float32")


def two_products(*, moved: bool, is_output: bool) -> Any:
    """``tanh(x)`` times two matrices; optionally moved before, or an output as well."""
    nodes = [helper.make_node("Tanh", ["x"], ["t"], "t")]
    source = "t"
    if moved:
        nodes.append(helper.make_node("Transpose", ["t"], ["m"], "m", perm=[0, 2, 1]))
        source = "m"
    for k, name in enumerate(("float", "integer")):
        nodes.append(helper.make_node("MatMul", [source, f"w{k}"], [name], name))
    outputs = ["float", "integer", *([source] if is_output else [])]
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6, 6])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 6, 6]) for name in outputs],
        [numpy_helper.from_array(value, f"w{k}") for k, value in enumerate(WEIGHTS)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("is_output", [False, True])
def test_two_readers_of_a_float_value(dtype: str, moved: bool, is_output: bool) -> None:
    proto = two_products(moved=moved, is_output=is_output)
    position = [node.name for node in proto.graph.node].index("float")
    small = np.random.default_rng(6).uniform(-0.1, 0.1, (16, 6, 6)).astype("float32")
    specs = (TensorSpec("x", (None, 6, 6), "float32"),)
    quantized = quantize_activations(proto, specs, {position}, dtype, {"x": small})
    session = onnxruntime.InferenceSession(quantized.SerializeToString())
    large = np.full((1, 6, 6), 0.5, "float32")
    large[0, 2] = -1.5
    outputs = session.run(None, {"x": large})
    value = np.tanh(large)
    value = value.swapaxes(1, 2) if moved else value
    np.testing.assert_allclose(outputs[0], value @ WEIGHTS[0], atol=1e-5)
    if is_output:
        np.testing.assert_allclose(outputs[2], value, atol=1e-6)
    # The other product clips its input to the measured range, doubled in int16.
    limit = np.abs(np.tanh(small)).max() * (2 if dtype == "int16" else 1)
    largest = np.abs(WEIGHTS[1]).sum(0).max() * limit
    assert np.abs(value @ WEIGHTS[1]).max() > largest
    assert np.abs(outputs[1]).max() <= 1.05 * largest
