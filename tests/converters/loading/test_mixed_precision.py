"""Models trained in half precision are loaded in float32, with a note."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from long_parameters import only

import models
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.migrate.mixed_precision import in_float32


@pytest.mark.parametrize("suffix", only(["h5", "keras"], "keras"))
@pytest.mark.parametrize("policy", only(["mixed_float16", "mixed_bfloat16"], "mixed_float16"))
def test_mixed_precision(policy: str, suffix: str, tmp_path: Path) -> None:
    def build() -> keras.Model:
        inputs = keras.Input((7, 3), name="x")
        states = keras.layers.LSTM(5, return_sequences=True, name="lstm")(inputs)
        vector = models.Attention(2, name="look")(states)
        return keras.Model(inputs, keras.layers.Dense(2, dtype="float32", name="y")(vector))

    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(policy)
    try:
        trained = models.filled(build())
        trained.save(tmp_path / f"model.{suffix}")
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    loaded = load_model(audit_file(tmp_path / f"model.{suffix}"))
    assert any(policy in note for note in loaded.notes)
    assert {layer.compute_dtype for layer in loaded.model.layers} == {"float32"}
    plain = models.filled(build())
    x = np.random.default_rng(1).normal(size=(3, 7, 3)).astype("float32")
    np.testing.assert_allclose(
        loaded.model.predict(x, verbose=0), plain.predict(x, verbose=0), atol=1e-6
    )
    # Close to the outputs of the half-precision model.
    np.testing.assert_allclose(
        loaded.model.predict(x, verbose=0), trained.predict(x, verbose=0), atol=0.05
    )


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_weights_in_bfloat16(suffix: str, tmp_path: Path) -> None:
    """HDF5 has no such numbers, so files store two bytes for each."""
    inputs = keras.Input((7,), name="x")
    trained = keras.Model(inputs, keras.layers.Dense(2, dtype="bfloat16")(inputs))
    trained.save(tmp_path / f"model.{suffix}")
    loaded = load_model(audit_file(tmp_path / f"model.{suffix}"))
    for variable, stored in zip(loaded.model.weights, trained.weights, strict=True):
        np.testing.assert_array_equal(variable, np.asarray(stored, "float32"))


def test_saturating_casts_keep_their_range(tmp_path: Path) -> None:
    inputs = keras.Input((6,), name="x")
    half = keras.ops.saturate_cast(inputs, "float16")
    trained = keras.Model(inputs, keras.ops.cast(half, "float32"))
    trained.save(tmp_path / "model.keras")
    loaded = load_model(audit_file(tmp_path / "model.keras"))
    x = np.array([[-np.inf, -7e4, -2.0, 0.25, 65504.0, 1e9]], "float32")
    np.testing.assert_array_equal(loaded.model(x), trained(x))
    assert any("float16" in note for note in loaded.notes)


def test_only_half_precision_is_changed() -> None:
    config = {
        "dtype": {"class_name": "Policy", "config": {"name": "mixed_float16"}},
        "layers": [{"dtype": "int32"}, {"dtype": "bfloat16", "name": "float16"}],
    }
    notes: list[str] = []
    assert in_float32(config, notes) == {
        "dtype": "float32",
        "layers": [{"dtype": "int32"}, {"dtype": "float32", "name": "float16"}],
    }
    assert notes == ["The model was trained in bfloat16, mixed_float16 and is computed in float32."]
    assert config["layers"][1]["dtype"] == "bfloat16"  # type: ignore[index]


def test_numbers_in_arguments_have_no_note() -> None:
    """A layer that is called with ``numpy.sqrt(24.0)`` does not compute in float64."""
    number = {"class_name": "__numpy__", "config": {"value": 4.9, "dtype": "float64"}}
    tensor = {"class_name": "__keras_tensor__", "config": {"shape": [1], "dtype": "float64"}}
    notes: list[str] = []
    in_float32({"dtype": "float32", "inbound_nodes": [{"args": [number, tensor]}]}, notes)
    assert notes == []


@pytest.mark.parametrize("kind", only(["folder", "m.h5", "m.keras"], "m.h5"))
def test_inputs_of_float64_are_named_and_compared(kind: str, tmp_path: Path) -> None:
    """As ``fit`` makes them of arrays of NumPy; the weights have single precision."""
    x = tf_keras.Input((7, 1), dtype="float64")
    y = tf_keras.layers.LSTM(4, return_sequences=True)(x)
    model = tf_keras.Model(x, tf_keras.layers.Dense(2)(tf_keras.layers.LSTM(3)(y)))
    path = tmp_path / kind
    model.save(path, **({"save_format": "tf"} if kind == "folder" else {}))
    loaded = load_model(audit_file(path))
    samples = np.random.default_rng(1).normal(size=(3, 7, 1))
    expected = model(samples)
    np.testing.assert_allclose(loaded.model(samples.astype("float32")), expected, atol=1e-6)
    assert loaded.notes == ("The inputs of the model are float64 in the file, and float32 here.",)


def test_graphs_take_float64(tmp_path: Path) -> None:
    class Doubled(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float64, "x")])
        def serve(self, x: Any) -> Any:
            return tf.cast(x * 2, tf.float32)

    module = Doubled()
    tf.saved_model.save(module, str(tmp_path / "m"), module.serve)
    loaded = load_model(audit_file(tmp_path / "m"))
    x = np.random.default_rng(1).normal(size=(4, 3))
    [actual] = loaded.model({"x": x}).values()
    np.testing.assert_allclose(actual, x * 2, rtol=1e-6)
