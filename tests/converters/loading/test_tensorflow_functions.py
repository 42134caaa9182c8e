"""Functional models of Keras 2 that call functions of TensorFlow, saved by tf_keras."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow_calls import CALLS, INPUTS, samples

from edgeattn.errors import UnsafeModelError, UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.lambdas import tensorflow_functions
from edgeattn_converters.loading.load import load_model

# tf_keras has them in Lambda layers only.
IN_LAMBDAS = {f"signal.{kind}{axes}" for kind in ("rfft", "irfft") for axes in ("", "2d", "3d")}
# Names that other versions of tf.keras store, and what they are in NumPy.
OTHER_VERSIONS = {"math.floordiv": np.floor_divide, "math.mod": np.mod, "math.divide": np.divide}


def _inputs() -> SimpleNamespace:
    return SimpleNamespace(
        **{
            name: tf_keras.Input(
                shape, dtype="int32" if isinstance(low, int) else "float32", name=name
            )
            for name, (shape, low, _) in INPUTS.items()
        }
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[np.ndarray]]:
    """A file with every call, the names of the calls by output, and what tf_keras computes."""
    inputs = _inputs()
    outputs, names = [], []
    for name, call in CALLS.items():
        results = tf.nest.flatten(call(inputs))
        outputs += results
        names += [name] * len(results)
    model = tf_keras.Model(list(vars(inputs).values()), outputs)
    path = tmp_path_factory.mktemp("functions") / "model.h5"
    model.save(path)
    return path, names, [np.asarray(value) for value in model(list(samples().values()))]


def test_every_function_computes_the_same(saved: tuple[Path, list[str], list[np.ndarray]]) -> None:
    path, names, expected = saved
    actual = load_model(audit_file(path)).model(list(samples().values()))
    for name, value, result in zip(names, expected, actual, strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-5, atol=1e-5, err_msg=name)


def _functions(path: Path) -> set[str]:
    """The functions that a file names, without operators such as ``x + y``."""
    with h5py.File(path) as file:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
    names = {
        str(layer["config"]["function"]) for layer in layers if layer["class_name"] == "TFOpLambda"
    }
    return {name for name in names if not name.startswith("__operators__")}


def test_every_function_of_the_table_is_called(
    saved: tuple[Path, list[str], list[np.ndarray]],
) -> None:
    stored = {name.removeprefix("compat.v1.") for name in _functions(saved[0])}
    assert not stored & IN_LAMBDAS
    assert stored | set(OTHER_VERSIONS) | IN_LAMBDAS == set(tensorflow_functions.FUNCTIONS)


def test_transforms_in_lambda_layers(tmp_path: Path) -> None:
    def magnitudes(x):
        return tf.abs(tf.signal.rfft(x))

    inputs = tf_keras.Input((4, 6), name="x")
    outputs = [
        tf_keras.layers.Lambda(magnitudes)(inputs),
        tf_keras.layers.Lambda(lambda x: tf.signal.irfft(tf.signal.rfft(x), [4]))(inputs),
        tf_keras.layers.Lambda(lambda x: tf.math.real(tf.signal.rfft2d(x)))(inputs),
        tf_keras.layers.Lambda(lambda x: tf.signal.irfft2d(tf.signal.rfft2d(x)))(inputs),
        tf_keras.layers.Lambda(lambda x: tf.abs(tf.signal.stft(x, 4, 2, pad_end=True)))(inputs),
    ]
    model = tf_keras.Model(inputs, outputs)
    path = tmp_path / "model.h5"
    model.save(path)
    loaded = load_model(audit_file(path))
    assert "tf.signal.rfft(x)" in " ".join(loaded.notes)
    x = samples()["x"]
    for value, result in zip(model(x), loaded.model(x), strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-5, atol=1e-5)


def test_a_window_that_the_file_does_not_define(tmp_path: Path) -> None:
    inputs = tf_keras.Input((64,))
    window = tf.signal.inverse_stft_window_fn(8)
    sound = tf.signal.inverse_stft(tf.signal.stft(inputs, 16, 8), 16, 8, window_fn=window)
    path = tmp_path / "model.h5"
    tf_keras.Model(inputs, sound).save(path)
    with pytest.raises(UnsupportedModelError, match=r"window_fn .* is not stored in the file"):
        load_model(audit_file(path))


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("math.unheard_of", UnsupportedModelError),
        ("random.normal", UnsupportedModelError),
        ("io.read_file", UnsafeModelError),
        ("numpy_function", UnsafeModelError),
    ],
)
def test_other_functions_are_named(function: str, error: type[Exception], tmp_path: Path) -> None:
    inputs = tf_keras.Input((3,))
    model = tf_keras.Model(inputs, tf.math.bessel_i0(inputs))
    path = tmp_path / "model.h5"
    model.save(path)
    with h5py.File(path, "r+") as file:
        config = file.attrs["model_config"]
        config = config.decode() if isinstance(config, bytes) else config
        file.attrs["model_config"] = config.replace("math.bessel_i0", function)
    with pytest.raises(error, match=function):
        load_model(audit_file(path))


def test_operands_that_the_file_does_not_contain(tmp_path: Path) -> None:
    """tf_keras stores the first argument of ``tf.einsum`` only, the equation."""
    inputs = tf_keras.Input((4, 6))
    path = tmp_path / "model.h5"
    tf_keras.Model(inputs, tf.einsum("bij,bkj->bik", inputs, inputs)).save(path)
    with pytest.raises(UnsupportedModelError, match=r"'einsum'.* does not contain its tensors"):
        load_model(audit_file(path))


@pytest.mark.parametrize("name", OTHER_VERSIONS)
def test_names_of_other_versions(name: str) -> None:
    values = np.array([-3.0, 2.5, 7.0], "float32")
    result = tensorflow_functions.call(name, [tf.constant(values), 2.0], {})
    np.testing.assert_allclose(result, OTHER_VERSIONS[name](values, 2.0), rtol=1e-6)
