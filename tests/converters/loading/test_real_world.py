"""Small models with constructs that occur in published model files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tf_keras
from keras import layers
from long_parameters import only

from edgeattn.errors import UnsafeModelError, UnsupportedModelError, UsageError
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.safety import config_screening
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.reference import reference_file
from edgeattn_converters.reference.edge_cases import EXTREMES
from edgeattn_converters.reference.plausible_inputs import ROWS
from edgeattn_converters.tracing.trace import interface_of

SPECIMENS = Path(__file__).parents[2] / "specimens"
STEPS, FEATURES = 6, 3


def artifacts(model: Any, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield format and path of the model in both formats."""
    for name, converter in (("tflite", tflite), ("onnx", onnx)):
        path = folder / f"model.{name}"
        converter.convert(model, interface_of(model), recipe_for("float32"), path)
        yield name, path


def run(name: str, path: Path, x: Any) -> Any:
    if name == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: x})[0]
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def assert_converts(model: Any, folder: Path) -> None:
    """Assert that both formats compute what Keras computes for a batch of two."""
    x = np.random.default_rng(3).normal(size=(2, *model.inputs[0].shape[1:])).astype("float32")
    expected = np.asarray(model(x, training=False))[:1]
    for name, path in artifacts(model, folder):
        np.testing.assert_allclose(run(name, path, x[:1]), expected, rtol=1e-5, atol=1e-5)


def stored_config(path: Path) -> dict[str, Any]:
    with h5py.File(path) as file:
        config: dict[str, Any] = json.loads(file.attrs["model_config"])
    return config


def rewrite_config(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the config that a file stores."""
    config = stored_config(path)
    change(config)
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = json.dumps(config)


def as_sequential(config: dict[str, Any]) -> None:
    """Turn a functional config into that of a Sequential: the layers without connections."""
    for item in config["config"]["layers"]:
        del item["inbound_nodes"], item["name"]
    config["class_name"] = "Sequential"
    config["config"] = {"name": "sequential", "layers": config["config"]["layers"]}


@pytest.mark.parametrize(
    "name",
    [
        "attention-5.0.0-debug-tf2.8/luong_functional",
        "attention-5.0.0-debug-tf2.8/bahdanau_masked",
        "attention-3.0-tf2.8/luong_masked",
    ],
)
def test_expanded_attention_in_a_sequential(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    shutil.copy(SPECIMENS / f"{name}.h5", path)
    functional = load_model(audit_file(path), time_steps=7, allow_free_time=True).model
    rewrite_config(path, as_sequential)
    sequential = load_model(audit_file(path), time_steps=7, allow_free_time=True).model
    shape = (3, *(7 if size is None else size for size in functional.inputs[0].shape[1:]))
    x = np.random.default_rng(1).integers(1, 9, shape).astype(functional.inputs[0].dtype)
    np.testing.assert_allclose(sequential(x), functional(x), rtol=1e-6, atol=1e-6)


def test_incomplete_expanded_attention_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    shutil.copy(SPECIMENS / "attention-5.0.0-debug-tf2.8/luong_functional.h5", path)

    def without_score(config: dict[str, Any]) -> None:
        as_sequential(config)
        layers = config["config"]["layers"]
        config["config"]["layers"] = [
            item for item in layers if item["config"]["name"] != "attention_score"
        ]

    rewrite_config(path, without_score)
    with pytest.raises(UnsupportedModelError, match="attention_weight"):
        load_model(audit_file(path))


@pytest.mark.parametrize(
    "name", only(["words>lstm>", "My LSTM (v2)", "слой-1", "a[0]"], "words>lstm>")
)
def test_names_that_tensorflow_rejects(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    inputs = keras.Input((STEPS, FEATURES), name="in put")
    model = keras.Model(inputs, layers.Dense(2)(layers.LSTM(4, name="odd")(inputs)), name="odd")
    x = np.random.default_rng(1).normal(size=(2, STEPS, FEATURES)).astype("float32")
    expected = model.predict(x, verbose=0)
    model.save(path)
    with h5py.File(path, "r+") as file:
        config = file.attrs["model_config"].replace('"odd"', json.dumps(name))
        file.attrs["model_config"] = config
        weights = file["model_weights"]
        weights.move("odd", name)
        names = [str(stored).replace("odd", name) for stored in weights.attrs["layer_names"]]
        weights.attrs["layer_names"] = [stored.encode() for stored in names]
    loaded = load_model(audit_file(path)).model
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, rtol=1e-6)
    assert [spec.name for spec in interface_of(loaded).inputs] == ["in put"]
    assert_converts(loaded, tmp_path)


def recurrent_with_dropout(kind: str) -> Any:
    image = keras.Input((3, 5, 5, 2))
    steps = keras.Input((STEPS, FEATURES))
    if kind == "convolution":
        return keras.Model(image, layers.ConvLSTM2D(2, 3, dropout=0.2)(image))
    cells = [layers.LSTMCell(2, dropout=0.2), layers.GRUCell(3, recurrent_dropout=0.1)]
    return keras.Model(steps, layers.RNN(cells)(steps))


@pytest.mark.parametrize("kind", only(["convolution", "cells"], "cells"))
def test_dropout_of_recurrences_that_are_not_lowered(kind: str, tmp_path: Path) -> None:
    assert_converts(recurrent_with_dropout(kind), tmp_path)


def with_one_feature(kind: str) -> Any:
    inputs = keras.Input((STEPS, 1))
    if kind == "attention":
        heads = layers.MultiHeadAttention(2, 3)(inputs, inputs)
        return keras.Model(inputs, heads + inputs)
    # With as many features as steps, Keras would broadcast along the other axis.
    wide = layers.Conv1D(STEPS, 3, padding="same")(inputs)
    return keras.Model(inputs, wide + layers.Dense(1)(inputs))


@pytest.mark.parametrize("kind", only(["attention", "square"], "attention"))
def test_sums_with_one_feature(kind: str, tmp_path: Path) -> None:
    assert_converts(with_one_feature(kind), tmp_path)


@pytest.mark.parametrize("padding", only(["valid", "same"], "same"))
@pytest.mark.parametrize("size", [(1, 2, 2), (2, 3, 2)])
@pytest.mark.parametrize("kind", [layers.MaxPooling3D, layers.AveragePooling3D])
def test_pooling_over_time_and_image(
    kind: Any, size: tuple[int, ...], padding: str, tmp_path: Path
) -> None:
    inputs = keras.Input((5, 5, 7, 2))
    pooled = kind(size, padding=padding)(inputs)
    assert_converts(keras.Model(inputs, layers.Dense(1)(layers.Flatten()(pooled))), tmp_path)


def test_normalization_of_one_feature(tmp_path: Path) -> None:
    inputs = keras.Input((STEPS, 1))
    normal = layers.LayerNormalization(epsilon=1e-6)
    model = keras.Model(inputs, layers.Dense(2)(inputs + normal(inputs * 100.0)))
    normal.beta.assign([0.25])
    assert_converts(model, tmp_path)


def test_ill_conditioned_edge_cases_are_left_out_of_the_reference(tmp_path: Path) -> None:
    inputs = keras.Input((4, 1))
    summed = layers.GlobalAveragePooling1D()(inputs)
    model = keras.Model(inputs, layers.Dense(1)(keras.ops.sin(summed * 1e5)))
    path = tmp_path / "reference.npz"
    summary = reference_file.write(model, interface_of(model), path, samples=None, attention=False)
    with np.load(path) as arrays:
        rows = {len(value) for value in arrays.values()}
    assert rows == {summary["samples"] + summary["edge_cases"]}
    assert summary["samples"] + summary["edge_cases"] + summary["left_out"] == ROWS + EXTREMES
    assert summary["left_out"] >= EXTREMES - 2  # rows of zeros remain


def test_length_that_only_the_weights_imply_is_requested(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    sequence = [
        keras.Input((STEPS, FEATURES)),
        layers.Conv1D(2, 2),
        layers.Flatten(),
        layers.Dense(1),
    ]
    model = keras.Sequential(sequence)
    model.save(path)

    def without_input(config: dict[str, Any]) -> None:
        config["config"]["layers"] = config["config"]["layers"][1:]
        config["config"].pop("build_input_shape", None)
        config.pop("build_config", None)

    rewrite_config(path, without_input)
    with pytest.raises(UsageError) as caught:
        load_model(audit_file(path), allow_free_time=True)
    assert "--time-steps" in str(caught.value.hint)
    x = np.ones((2, STEPS, FEATURES), "float32")
    loaded = load_model(audit_file(path), time_steps=STEPS).model
    np.testing.assert_allclose(loaded(x), model(x), rtol=1e-6)


def test_unknown_raw_operation_is_named() -> None:
    node = {"name": "hash", "op": "Fingerprint", "input": ["x"], "attr": {}}
    item = {"class_name": "TensorFlowOpLayer", "config": {"name": "hash", "node_def": node}}
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": [item]}}
    with pytest.raises(UnsafeModelError, match="Fingerprint") as caught:
        config_screening.screen(config, hint="", trusted=False)
    assert "Keras layers in its place" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("concat", np.hstack), ("mul", np.prod), ("sum", np.sum), ("max", np.max)],
)
@pytest.mark.parametrize("masks", [None, [None, None], [[None, None], None]])
def test_merge_layer_with_masks_that_are_none(
    mode: str, expected: Callable[..., Any], masks: Any, tmp_path: Path
) -> None:
    """Keras 1 and 2.0 store the masks of the inputs among the arguments of the call."""
    inputs = [tf_keras.Input((3,), name="a"), tf_keras.Input((3,), name="b")]
    path = tmp_path / "model.h5"
    tf_keras.Model(inputs, tf_keras.layers.Concatenate(name="merged")(inputs)).save(path)

    def as_merge(config: dict[str, Any]) -> None:
        item = config["config"]["layers"][-1]
        item["class_name"] = "Merge"
        item["config"] = {"name": "merged", "mode": mode, "concat_axis": -1, "dot_axes": -1}
        item["inbound_nodes"] = [[["a", 0, 0, {}], ["b", 0, 0, {"mask": masks}]]]

    rewrite_config(path, as_merge)
    values = np.random.default_rng(1).normal(size=(2, 4, 3)).astype("float32")
    arguments = {} if mode == "concat" else {"axis": 0}
    result = load_model(audit_file(path)).model(list(values))
    np.testing.assert_allclose(result, expected(values, **arguments), rtol=1e-6)
