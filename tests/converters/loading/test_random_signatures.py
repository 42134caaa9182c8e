"""Signatures of SavedModels that draw random numbers, for their outputs or not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from long_parameters import only

import edgeattn
from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

X = np.random.default_rng(1).normal(size=(4, 6, 8)).astype("float32")


class Sampling(tf_keras.layers.Layer):
    """Draws from a distribution, as the encoders of variational autoencoders."""

    def __init__(self, whole: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.whole = whole

    def call(self, inputs: Any) -> Any:
        """Return real or whole numbers of the shape of the mean."""
        mean, log = inputs
        z = mean + tf.exp(0.5 * log) * tf.random.normal(tf.shape(mean))
        return tf.cast(z * 100, tf.int32) if self.whole else z


def encoder(*, attends: bool, whole: bool) -> Any:
    K = tf_keras.layers
    inputs = K.Input((6, 8), name="x")
    x = K.MultiHeadAttention(2, 4)(inputs, inputs) if attends else inputs
    x = K.GlobalAveragePooling1D()(x)
    parts = [K.Dense(4, name=name)(x) for name in ("z_mean", "z_log_var")]
    return tf_keras.Model(inputs, [*parts, Sampling(whole, name="z")(parts)])


class Module(tf.Module):
    """Outputs by name, of functions that draw random numbers in several places."""

    @tf.function(input_signature=[tf.TensorSpec([None, 3], name="x")])
    def beside(self, x: Any) -> Any:
        noise = tf.random.uniform(tf.shape(x))
        return {
            "y": 2 * x + 0 * noise,
            "rows": tf.shape(noise)[:1] + tf.zeros_like(x[:, 0], "int32"),
        }

    @tf.function(input_signature=[tf.TensorSpec([None, 3], name="x")])
    def all_outputs(self, x: Any) -> Any:
        noise = tf.random.truncated_normal(tf.shape(x))
        return {"a": x + noise, "b": x * noise}

    @tf.function(input_signature=[tf.TensorSpec([None, 3], name="x")])
    def in_loop(self, x: Any) -> Any:
        y = x
        for _ in tf.range(3):
            y += tf.random.uniform(tf.shape(x))
        return {"drawn": y, "double": 2 * x}

    @tf.function(input_signature=[tf.TensorSpec([1, 3], name="x")])
    def of_one(self, x: Any) -> Any:
        return {"drawn": x + tf.random.normal([1, 3]), "double": 2 * x}


def folder(path: Path, name: str) -> Path:
    module = Module()
    tf.saved_model.save(module, path / name, signatures=getattr(module, name))
    return path / name


def error_of(path: Path, **options: Any) -> UnsupportedModelError:
    with pytest.raises(UnsupportedModelError) as caught:
        edgeattn.convert(path, path.parent / "o.edge", schemes="float32", **options)
    for text in ("--no-attention", "--samples", "validate"):
        assert text not in f"{caught.value.message} {caught.value.hint}"
    return caught.value


def saved_again(hint: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"(m = tf\.saved_model\.load.*)", hint or "")
    assert code, hint
    monkeypatch.chdir(folder)
    exec(code[1], {"tf": tf})


@pytest.mark.parametrize("whole", only([False, True], False))
@pytest.mark.parametrize("attends", only([True, False], True))
def test_encoders_that_sample(
    attends: bool, whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = encoder(attends=attends, whole=whole)
    model.save(tmp_path / "enc")
    error = error_of(tmp_path / "enc")
    assert "output 'z' in each call (operation RandomStandardNormal)" in error.message
    assert "The outputs 'z_log_var' and 'z_mean' are deterministic." in error.message
    saved_again(error.hint, tmp_path, monkeypatch)
    edgeattn.convert(tmp_path / "enc_2", tmp_path / "o.edge", schemes="float32")
    loaded = load_model(audit_file(tmp_path / "enc_2")).model
    outputs, (mean, log, _) = loaded({"x": X}), model(X)
    np.testing.assert_allclose(outputs["z_mean"], mean, atol=1e-5)
    np.testing.assert_allclose(outputs["z_log_var"], log, atol=1e-5)


@pytest.mark.parametrize("name", ["in_loop", "of_one"])
def test_one_of_two_outputs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = error_of(folder(tmp_path, name))
    kind = "RandomUniform" if name == "in_loop" else "RandomStandardNormal"
    assert f"its output 'drawn' in each call (operation {kind})" in error.message
    assert "The output 'double' is deterministic." in error.message
    saved_again(error.hint, tmp_path, monkeypatch)
    edgeattn.convert(tmp_path / f"{name}_2", tmp_path / "o.edge", schemes="float32")


def test_all_outputs(tmp_path: Path) -> None:
    error = error_of(folder(tmp_path, "all_outputs"))
    assert "its outputs 'a' and 'b' in each call (operation TruncatedNormal)" in error.message
    assert "deterministic" not in error.message
    assert "such as the mean" in str(error.hint)


def test_random_numbers_that_reach_no_output(tmp_path: Path) -> None:
    loaded = load_model(audit_file(folder(tmp_path, "beside"))).model
    x = X[:, 0, :3]
    np.testing.assert_allclose(loaded({"x": x})["y"], 2 * x, rtol=1e-6)
