"""Bidirectional layers of Keras 2 whose two layers differ, and functions named softmax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras
from test_keras2_layers import assign_same_weights

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

layers = tf_keras.layers
CONVERTERS = {"tflite": tflite, "onnx": onnx}


def check_files(model: Any, x: np.ndarray, expected: list[np.ndarray], folder: Path) -> None:
    """Compare the outputs of the files of both formats."""
    interface = interface_of(model)
    for format, converter in CONVERTERS.items():
        path = folder / format
        file = converter.convert(model, interface, recipe_for("float32"), path)
        actual = open_runner(path, format, file.inputs, file.outputs).run({"x": x})
        for spec, value in zip(file.outputs, expected, strict=True):
            np.testing.assert_allclose(actual[spec.name], value, atol=1e-5)


def _loaded(model: Any, path: Path) -> Any:
    model.save(path)
    return load_model(audit_file(path))


@pytest.mark.long
def test_layers_of_different_sizes(tmp_path: Path) -> None:
    """The next layer was built for twice the features of the forward layer."""
    x = tf_keras.Input((7, 5), name="x")
    backward = layers.GRU(4, return_sequences=True, go_backwards=True, use_bias=False)
    both = layers.Bidirectional(layers.LSTM(3, return_sequences=True), backward_layer=backward)
    states = layers.Bidirectional(
        layers.GRU(2, return_state=True, reset_after=False),
        backward_layer=layers.SimpleRNN(3, return_state=True, go_backwards=True),
    )
    apart = layers.Bidirectional(
        layers.SimpleRNN(2),
        backward_layer=layers.LSTM(3, go_backwards=True),
        merge_mode=None,
    )
    outputs = [layers.Dense(2)(layers.LSTM(3)(both(x))), *states(x), *apart(x)]
    model = tf_keras.Model(x, outputs)
    assign_same_weights(model, model, np.random.default_rng(2))
    loaded = _loaded(model, tmp_path / "model.h5").model
    values = np.random.default_rng(3).normal(size=(1, 7, 5)).astype("float32")
    expected = [np.asarray(value) for value in model(values)]
    interface = interface_of(loaded)
    assert [spec.shape[1:] for spec in interface.outputs] == [item.shape[1:] for item in expected]
    check_files(loaded, values, expected, tmp_path)


@pytest.mark.long
def test_a_forward_layer_that_runs_backwards(tmp_path: Path) -> None:
    """Keras 2 lets the other layer run forward, in Keras 3 it would run backwards too."""
    x = tf_keras.Input((3, 5), name="x")
    masked = layers.Masking()(x)
    outputs = [
        layers.Bidirectional(layers.LSTM(3, return_sequences=True, go_backwards=True))(x),
        layers.Bidirectional(layers.GRU(2, go_backwards=True), merge_mode="sum")(x),
        layers.Bidirectional(layers.GRU(4, return_sequences=True, go_backwards=True))(masked),
    ]
    model = tf_keras.Model(x, outputs)
    assign_same_weights(model, model, np.random.default_rng(2))
    loaded = _loaded(model, tmp_path / "model.h5").model
    values = np.random.default_rng(3).normal(size=(1, 3, 5)).astype("float32")
    values[:, 2:] = 0
    expected = [np.asarray(value) for value in model(values)]
    for actual, value in zip(loaded(values), expected, strict=True):
        np.testing.assert_allclose(actual, value, atol=1e-6)
    check_files(loaded, values, expected, tmp_path)


class Heads(layers.Layer):  # type: ignore[misc]
    """Layers side by side, as in the MultiHead of keras-multi-head."""

    def __init__(self, layers: list[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = layers

    def call(self, x: Any) -> Any:
        return sum(head(x) for head in self.heads)

    def get_config(self) -> dict[str, Any]:
        heads = [{"class_name": "Bidirectional", "config": x.get_config()} for x in self.heads]
        return {**super().get_config(), "layers": heads}


HEADS = """
import keras

class Heads(keras.layers.Layer):
    def __init__(self, layers, **kwargs):
        super().__init__(**kwargs)
        self.heads = [keras.layers.deserialize(layer) for layer in layers]

    def call(self, x):
        return sum(head(x) for head in self.heads)
"""


@pytest.mark.long
def test_layers_that_run_backwards_in_a_list_of_an_own_class(tmp_path: Path) -> None:
    x = tf_keras.Input((7, 5))
    model = tf_keras.Model(
        x,
        Heads(
            [
                layers.Bidirectional(layers.LSTM(3, return_sequences=True, go_backwards=True))
                for _ in range(2)
            ]
        )(x),
    )
    assign_same_weights(model, model, np.random.default_rng(2))
    model.save(tmp_path / "model.h5")
    (tmp_path / "own.py").write_text(HEADS)
    file = audit_file(tmp_path / "model.h5")
    loaded = load_model(file, custom_objects=tmp_path / "own.py").model
    values = np.random.default_rng(3).normal(size=(2, 7, 5)).astype("float32")
    np.testing.assert_allclose(loaded(values), model(values), atol=1e-6)


def test_an_equal_layer_for_each_direction(tmp_path: Path) -> None:
    x = tf_keras.Input((4, 3))
    layer = layers.Bidirectional(layers.GRU(2, return_sequences=True), merge_mode="ave")
    model = tf_keras.Model(x, layers.Dense(2)(layer(x)))
    values = np.random.default_rng(3).normal(size=(2, 4, 3)).astype("float32")
    actual = _loaded(model, tmp_path / "model.h5").model(values)
    np.testing.assert_allclose(actual, model(values), atol=1e-6)


def _attention(heads: int, axes: Any) -> Any:
    """Scores for each step, and the steps summed with their softmax as weights."""
    x = tf_keras.Input((6, 4))
    weights = layers.Activation("softmax", name="weights")(layers.Dense(heads)(x))
    if axes == "permuted":
        weights = layers.Permute((2, 1))(layers.Softmax(axis=1)(layers.Dense(heads)(x)))
        return tf_keras.Model(x, layers.Dot((2, 1), name="context")([weights, x]))
    return tf_keras.Model(x, layers.Dot(axes, name="context")([weights, x]))


def test_softmax_along_another_axis_than_the_sum_is_noted(tmp_path: Path) -> None:
    """A softmax of the user's program along the steps is stored with the name of Keras' softmax."""
    expected = {
        (3, 1): "weights: Keras' softmax is over the last axis, and context sums its weights along",
        (1, 1): "weights: Keras' softmax over an axis of one value is 1",
        (4, 2): None,
        (4, (2, 2)): None,
        (3, "permuted"): None,
    }
    for (heads, axes), note in expected.items():
        notes = _loaded(_attention(heads, axes), tmp_path / "model.h5").notes
        found = [item for item in notes if "Keras' softmax" in item]
        assert len(found) == (note is not None), (heads, axes)
        assert note is None or found[0].startswith(note)
