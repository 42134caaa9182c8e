"""Both formats, run in their runtimes, compared with ``predict`` of Keras."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow
from long_parameters import only

import models
from edgeattn.runners import open_runner
from edgeattn.tensors import Tensors
from edgeattn_converters.formats import onnx, tflite, tflite_float
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.options import ConversionOptions
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing import trace as tracing
from edgeattn_converters.tracing.trace import Interface, interface_of

# As the converter of TensorFlow 2.21 writes them.
FAILURES = {
    "<unknown>:0: error: loc(fused): 'tf.X' op failed": "loc(fused): 'tf.X' op failed",
    "plain text\nsecond line": "plain text",
    "Stopped./opt/lib/core.py:7: error: no shape": "Stopped. no shape",
}
CONVERTERS = {"tflite": tflite, "onnx": onnx}
SEQUENCES = 9


QUICK = ("lstm_luong", "gru_bahdanau_masked", "masked_heads")


@pytest.fixture(scope="module", params=only(sorted(models.MODELS), *QUICK))
def model(request: pytest.FixtureRequest) -> Any:
    return models.filled(models.MODELS[request.param]())


@pytest.fixture(scope="module")
def interface(model: Any) -> Interface:
    return interface_of(model)


@pytest.fixture(scope="module")
def inputs(interface: Interface) -> Tensors:
    generator = np.random.default_rng(5)
    tensors = {}
    for spec in interface.inputs:
        shape = (SEQUENCES, *(axis or 1 for axis in spec.shape[1:]))
        if spec.name in ("tokens", "token"):
            values = generator.integers(1, 13, shape)
            values[1, 4:] = values[2, :3] = values[3, 2:4] = values[4] = 0
        else:
            values = generator.normal(0, 2, shape)
        tensors[spec.name] = values.astype(spec.dtype)
    return tensors


@pytest.fixture(scope="module")
def expected(model: Any, interface: Interface, inputs: Tensors) -> Tensors:
    ordered = [inputs[spec.name] for spec in interface.inputs]
    predicted = model.predict(ordered if len(ordered) > 1 else ordered[0], verbose=0)
    values = predicted if isinstance(predicted, list) else [predicted]
    return {spec.name: v for spec, v in zip(interface.outputs, values, strict=True)}


@pytest.fixture(scope="module")
def converted(
    model: Any, interface: Interface, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("converted")
    files = {}
    for name, converter in CONVERTERS.items():
        path = folder / f"model.{name}"
        files[name] = (path, *converter.convert(model, interface, recipe_for("float32"), path))
    return files


@pytest.mark.parametrize("format", sorted(CONVERTERS))
def test_outputs_match_keras(
    format: str, converted: dict[str, Any], inputs: Tensors, expected: Tensors
) -> None:
    path, specs, outputs, _, _ = converted[format]
    actual = open_runner(path, format, specs, outputs, as_deployed=True).run(inputs)
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, atol=1e-5, rtol=1e-4, err_msg=name)


def test_onnx_accepts_any_batch_size(
    converted: dict[str, Any], inputs: Tensors, expected: Tensors
) -> None:
    path, specs, outputs, _, _ = converted["onnx"]
    actual = open_runner(path, "onnx", specs, outputs).run(inputs)
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, atol=1e-5, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("format", sorted(CONVERTERS))
def test_maps_match_keras(
    format: str, converted: dict[str, Any], inputs: Tensors, model: Any, interface: Interface
) -> None:
    path, specs, outputs, attention, _ = converted[format]
    actual = open_runner(path, format, specs, outputs, as_deployed=True).run(inputs)
    traced = tracing.trace(model, interface, batch=None, attention=True, freeze=False)
    results = traced.function(
        *[tensorflow.constant(inputs[spec.name]) for spec in interface.inputs]
    )
    maps = dict(zip([spec.name for spec in traced.outputs], results, strict=True))
    assert attention == traced.attention
    for name in attention:
        np.testing.assert_allclose(actual[name], maps[name], atol=1e-5, err_msg=name)
        if "tokens" not in inputs:  # padded rows sum to less than 1
            np.testing.assert_allclose(actual[name].sum(-1), 1.0, atol=1e-5)


def test_tflite_has_builtin_operators_and_no_state(converted: dict[str, Any]) -> None:
    path, *_, achieved = converted["tflite"]
    assert not [name for name in achieved["operators"] if name.startswith(("CUSTOM", "FLEX"))]
    assert achieved["variables"] == 0
    assert "VAR_HANDLE" not in achieved["operators"]
    with_schema = TFLiteFile(path.read_bytes())
    assert Counter(kind for *_, kind in with_schema.operators()) == achieved["operators"]


def test_onnx_has_recurrent_nodes(converted: dict[str, Any], model: Any) -> None:
    *_, achieved = converted["onnx"]
    assert "Loop" not in achieved["operators"]
    assert "Scan" not in achieved["operators"]
    kinds = {type(layer).__name__ for layer in models.layers_of(model)}
    for keras_name, onnx_name in {"LSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN"}.items():
        assert (onnx_name in achieved["operators"]) == (keras_name in kinds)


def test_inputs_and_outputs_have_the_names_of_the_model(
    converted: dict[str, Any], interface: Interface
) -> None:
    for _, specs, outputs, attention, _ in converted.values():
        assert [spec.name for spec in specs] == [spec.name for spec in interface.inputs]
        assert [spec.name for spec in outputs] == [spec.name for spec in interface.all_outputs]
        assert set(attention) == {spec.name for spec in interface.attention}
    # In the file too, with the main outputs first, for code that uses positions.
    from ai_edge_litert.interpreter import Interpreter

    path = converted["tflite"][0]
    details = Interpreter(model_path=str(path)).get_output_details()
    assert [item["name"] for item in details] == [spec.name for spec in interface.all_outputs]


@pytest.mark.long
def test_files_without_maps(model: Any, interface: Interface, tmp_path: Path) -> None:
    for name, converter in CONVERTERS.items():
        path = tmp_path / f"model.{name}"
        _, outputs, attention, _ = converter.convert(
            model,
            interface,
            recipe_for("float32"),
            path,
            options=ConversionOptions(attention=False),
        )
        assert attention == ()
        assert [spec.name for spec in outputs] == [spec.name for spec in interface.outputs]
        assert path.is_file()


@pytest.mark.parametrize("format", sorted(CONVERTERS))
def test_quotients_of_negative_numbers(format: str, tmp_path: Path) -> None:
    """They are rounded down, and remainders have the sign of the divisor, as in Python."""
    import keras
    from keras import ops

    integers = keras.Input((5,), dtype="int32", name="integers")
    reals = keras.Input((5,), name="reals")
    outputs = [
        *(ops.floor_divide(integers, 3), ops.mod(integers, 3), ops.floor_divide(integers, -4)),
        *(ops.floor_divide(reals, 1.5), ops.mod(reals, 1.5)),
    ]
    joined = keras.layers.Concatenate()([ops.cast(item, "float32") for item in outputs])
    model = keras.Model([integers, reals], keras.layers.Dense(25, name="all")(joined))
    # The identity, because a model has weights.
    model.set_weights([np.eye(25, dtype="float32"), np.zeros(25, "float32")])
    values = np.array([[-7, -3, -1, 0, 5], [7, 2, -2, -4, -9]], np.int32)
    inputs = {"integers": values, "reals": (values / 2).astype("float32")}
    path = tmp_path / f"model.{format}"
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    runner = open_runner(path, format, file.inputs, file.outputs, as_deployed=True)
    halves = values / 2
    expected = [values // 3, values % 3, values // -4, halves // 1.5, halves % 1.5]
    np.testing.assert_allclose(runner.run(inputs)["all"], np.concatenate(expected, 1), atol=1e-6)


@pytest.mark.parametrize("text", FAILURES)
def test_errors_of_the_tflite_converter(text: str) -> None:
    assert tflite_float._reason(ValueError(text)) == FAILURES[text]


def test_missing_operations_of_the_tflite_converter() -> None:
    """As the converter of TensorFlow 2.21 writes them."""
    text = (
        "Could not translate MLIR to FlatBuffer./home/a/user/model.py:134:1: error: 'tf.Atan' op "
        "is neither a custom op nor a flex op\n<unknown>:0: note: called\n/x.py:1:1: error: "
        "'tf.Asinh' op is neither a custom op nor a flex op"
    )
    assert tflite_float._missing(ValueError(text)) == ["Asinh", "Atan"]


def test_maximum_with_a_product(tmp_path: Path) -> None:
    """tf2onnx takes ``maximum(alpha * x, x)`` for LeakyRelu, also if alpha is an array."""
    import keras
    from keras import ops

    alphas = {
        "number": np.float32(0.2),
        "features": np.float32([0.1, -0.4, 2.0]),
        "one": np.float32([0.3]),
        "steps": np.float32([[[0.2], [0.9], [-1.0], [1.5]]]),
    }
    x = keras.Input((4, 3), name="x")
    model = keras.Model(
        x,
        {
            name: ops.maximum((x + k) * alpha, x + k)
            for k, (name, alpha) in enumerate(alphas.items())
        },
    )
    values = np.random.default_rng(1).normal(size=(5, 4, 3)).astype("float32")
    interface = interface_of(model)
    onnx.convert(model, interface, recipe_for("float32"), tmp_path / "m.onnx")
    runner = open_runner(tmp_path / "m.onnx", "onnx", interface.inputs, interface.outputs)
    outputs = runner.run({"x": values})
    for k, (name, alpha) in enumerate(alphas.items()):
        expected = np.maximum((values + k) * alpha, values + k)
        np.testing.assert_allclose(outputs[name], expected, rtol=1e-6)


def test_product_with_a_comparison(tmp_path: Path) -> None:
    """tf2onnx takes ``x * (x > alpha)`` for ThresholdedRelu, also of arrays and of integers."""
    import keras
    from keras import ops

    alphas = {
        "number": np.float32(0.2),
        "features": np.float32([0.1, -0.4, 2.0]),
        "steps": np.float32([[[0.2], [0.9], [-1.0], [1.5]]]),
    }
    x, n = keras.Input((4, 3), name="x"), keras.Input((4,), dtype="int32", name="n")
    outputs = {name: x * ops.cast(x > alpha, "float32") for name, alpha in alphas.items()}
    outputs["below"] = x * ops.cast(ops.greater(alphas["features"], x), "float32")
    # Rare words as the unknown word, which is 0.
    outputs["integers"] = n * ops.cast(n > 2, "int32")
    generator = np.random.default_rng(1)
    inputs = {
        "x": generator.normal(size=(5, 4, 3)).astype("float32"),
        "n": generator.integers(-1, 6, (5, 4)).astype("int32"),
    }
    model = keras.Model([x, n], outputs)
    interface = interface_of(model)
    onnx.convert(model, interface, recipe_for("float32"), tmp_path / "m.onnx")
    runner = open_runner(tmp_path / "m.onnx", "onnx", interface.inputs, interface.outputs)
    actual = runner.run(inputs)
    values, words = inputs["x"], inputs["n"]
    for name, alpha in alphas.items():
        np.testing.assert_array_equal(actual[name], np.where(values > alpha, values, 0))
    below = values < alphas["features"]
    np.testing.assert_array_equal(actual["below"], np.where(below, values, 0))
    np.testing.assert_array_equal(actual["integers"], np.where(words > 2, words, 0))
