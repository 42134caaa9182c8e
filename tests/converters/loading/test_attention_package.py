"""Programs and files of the package ``attention``: compiled models, and its debug mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras
from long_parameters import only

from edgeattn.layers import Attention, attention_maps
from edgeattn.numpy_attention import attention_weights
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.tracing.trace import interface_of

SPECIMENS = Path(__file__).parents[2] / "specimens"
X = np.random.default_rng(3).normal(size=(4, 7, 2)).astype("float32")
LOSSES = {
    "mae": {"loss": "mae"},
    "mse and metrics": {"loss": "mse", "metrics": ["mae", "mape", "accuracy"]},
    "long names": {"loss": "mean_absolute_error", "metrics": ["mean_squared_error"]},
    "crossentropy": {"loss": "binary_crossentropy", "metrics": ["acc"]},
    "cosine": {"loss": "cosine_similarity", "loss_weights": [0.5]},
}


@pytest.mark.parametrize("library", ["keras 3", "tf_keras"])
@pytest.mark.parametrize("kind", only(LOSSES, "mse and metrics"))
def test_compiled_models_in_h5(kind: str, library: str, tmp_path: Path) -> None:
    """Keras 3 cannot load most of these itself, because it does not find the short names."""
    used: Any = keras if library == "keras 3" else tf_keras
    inputs = used.Input((7, 2))
    hidden = used.layers.LSTM(5, return_sequences=True)(inputs)
    if library == "keras 3":
        hidden = Attention(3, score="bahdanau")(hidden)
    else:
        hidden = used.layers.GlobalAveragePooling1D()(hidden)
    model = used.Model(inputs, used.layers.Dense(1, activation="sigmoid")(hidden))
    model.compile("adam", **LOSSES[kind])
    model.save(tmp_path / "model.h5")
    loaded = load_model(audit_file(tmp_path / "model.h5")).model
    np.testing.assert_allclose(loaded(X), model(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("score", ["luong", "bahdanau"])
def test_variable_of_the_package_has_no_effect(score: str, monkeypatch: Any) -> None:
    """With it the package creates a layer ``attention_weight``; attention_maps() has its output."""
    monkeypatch.setenv("KERAS_ATTENTION_DEBUG", "1")
    inputs = keras.Input((7, 2))
    layer = Attention(3, score=score)
    model = keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))
    assert [type(item).__name__ for item in model.layers] == ["InputLayer", "Attention", "Dense"]
    names = {"luong": ["luong_w"], "bahdanau": ["bahdanau_w1", "bahdanau_w2", "bahdanau_v"]}
    kernels = {name: np.asarray(getattr(layer, name).kernel) for name in names[score]}
    expected = attention_weights(X, score=score, **kernels)
    np.testing.assert_allclose(attention_maps(model, X), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "attention-5.0.0-debug-tf2.8/luong_functional.h5",
        "attention-5.0.0-debug-tf2.8/bahdanau_masked.h5",
        "attention-5.0.0-debug-tf2.15/bahdanau_masked.keras",
    ],
)
def test_layer_of_the_debug_mode_is_the_map(name: str) -> None:
    """What a program reads from the layer ``attention_weight`` is the map of the artifacts."""
    path = SPECIMENS / name
    truth = np.load(path.with_suffix(".npz"))
    model = load_model(audit_file(path)).model
    inner = keras.Model(model.inputs, model.get_layer("attention_weight").output)
    x = next(truth[key] for key in truth.files if key.startswith("x"))
    np.testing.assert_allclose(np.squeeze(inner(x)), truth["attention"], rtol=1e-4, atol=1e-6)
    assert [spec.name for spec in interface_of(model).attention] == ["attention/attention_weight"]


def _dense_weights(x: Any) -> Any:
    scores = keras.layers.Dense(2, activation="softmax", name="attention_weight")(x)
    return keras.layers.Multiply(name="attention_output")([x, scores])


def _own_pooling(x: Any) -> Any:
    scores = keras.layers.Dense(1, name="attention_score")(x)
    weights = keras.layers.Softmax(axis=1, name="attention_weight")(scores)
    summed = keras.layers.Dot(axes=1, name="context_vector")([weights, x])
    return keras.layers.Dense(3, activation="tanh", name="attention_vector")(summed)


def _last_state(x: Any) -> Any:
    last = keras.layers.LSTM(4, name="last_hidden_state")(x)
    return keras.layers.Dense(4, name="attention_vector")(last)


@pytest.mark.parametrize("suffix", only([".keras", ".h5"], ".h5"))
@pytest.mark.parametrize("build", [_dense_weights, _own_pooling, _last_state])
def test_other_layers_with_the_names_of_the_package(
    build: Any, suffix: str, tmp_path: Path
) -> None:
    inputs = keras.Input((7, 2))
    model = keras.Model(inputs, build(inputs))
    path = tmp_path / f"model{suffix}"
    model.save(path)
    np.testing.assert_allclose(load_model(audit_file(path)).model(X), model(X), rtol=1e-5)


def test_sequential_with_names_of_the_package(tmp_path: Path) -> None:
    names = ["last_hidden_state", "attention_weight", "context_vector", "attention_vector"]
    layers = [keras.layers.Dense(3, name=name) for name in names]
    model = keras.Sequential([keras.Input((7, 2)), *layers])
    model.save(tmp_path / "model.keras")
    loaded = load_model(audit_file(tmp_path / "model.keras")).model
    np.testing.assert_allclose(loaded(X), model(X), rtol=1e-5)
