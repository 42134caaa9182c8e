"""Segments of rows whose numbers are constants, compared with TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
ROWS, FEATURES = 7, 3
SORTED = {
    "equal": [0, 1, 2, 3, 4, 5, 6],
    "one": [0, 0, 0, 0, 0, 0, 0],
    "uneven": [0, 0, 1, 1, 1, 2, 2],
    "with empty ones": [1, 1, 3, 4, 4, 4, 7],
}
UNSORTED = {
    "in another order": [2, 0, 1, 0, 2, 1, 0],
    "with empty ones": [4, 1, 1, 4, 2, 1, 1],
    "with dropped ones": [-1, 0, 3, -1, 3, 0, 3],
}
PAIRS = np.arange(ROWS * FEATURES).reshape(ROWS, FEATURES) % 4
KINDS = ("sum", "mean", "prod", "max", "min")
_Functions = dict[str, Callable[[Any], Any]]


def _of(name: str, *arguments: Any) -> Callable[[Any], Any]:
    """A call for the rows of each sample, of shape (samples, rows, features)."""
    function = getattr(tf.math, name)
    return lambda x: tf.transpose(function(tf.transpose(x, [1, 0, 2]), *arguments), [1, 0, 2])


FUNCTIONS: _Functions = {
    **{
        f"{kind} {name}": _of(f"segment_{kind}", tf.constant(numbers))
        for name, numbers in SORTED.items()
        for kind in KINDS
    },
    **{
        f"unsorted {kind} {name}": _of(f"unsorted_segment_{kind}", tf.constant(numbers), 6)
        for name, numbers in UNSORTED.items()
        for kind in (*KINDS, "sqrt_n")
    },
    "computed": lambda x: _of("segment_mean", tf.cast(tf.repeat([0, 1, 2], [3, 1, 3]), "int64"))(x),
    "larger than all": lambda x: _of(
        "unsorted_segment_max", tf.constant([1, 0, 1, 2, 2, 0, 0]), tf.reduce_max([0, 2]) + 1
    )(x),
    "pairs of numbers": lambda x: tf.transpose(
        tf.math.unsorted_segment_sum(tf.transpose(x, [1, 2, 0]), PAIRS, 5)
    ),
    **{
        f"keras {kind}": lambda x, kind=kind: of_keras(kind)(x)
        for kind in ("sum", "max", "min", "prod")
        if hasattr(ops, f"segment_{kind}")
    },
    "keras sorted": lambda x: of_keras("max", "with empty ones", sorted=True)(x),
}


def of_keras(kind: str, name: str = "uneven", **options: Any) -> Callable[[Any], Any]:
    def call(x: Any) -> Any:
        function, numbers = getattr(ops, f"segment_{kind}"), np.array(SORTED[name], "int32")
        return ops.transpose(function(ops.transpose(x, (1, 0, 2)), numbers, **options), (1, 0, 2))

    return call


class Segments(keras.layers.Layer):  # type: ignore[misc]
    def __init__(self, functions: _Functions) -> None:
        super().__init__()
        self.functions = functions

    def call(self, x: Any) -> Any:
        return {name: function(x) for name, function in self.functions.items()}


def _model(functions: _Functions, dtype: str = "float32") -> Any:
    x = keras.Input((ROWS, FEATURES), dtype=dtype, name="x")
    return keras.Model(x, Segments(functions)(x))


def _check(model: Any, format: str, x: np.ndarray, path: Path) -> None:
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    runner = open_runner(path, format, file.inputs, file.outputs)
    for sample in x:
        actual = runner.run({"x": sample[None]})
        for name, expected in model(sample[None]).items():
            np.testing.assert_allclose(actual[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("format", only(CONVERTERS, "tflite"))
def test_segments_as_in_tensorflow(format: str, tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(2, ROWS, FEATURES)).astype("float32")
    x[1, 3, 0] = np.inf  # in one segment only
    _check(_model(FUNCTIONS), format, x, tmp_path / "m")


@pytest.mark.parametrize("format", only(CONVERTERS, "onnx"))
@pytest.mark.parametrize("dtype", only(["int32", "int64"], "int32"))
def test_segments_of_integers(dtype: str, format: str, tmp_path: Path) -> None:
    """Means are rounded towards zero; sums have no more bits than the numbers."""
    functions = {
        f"{kind} {name}": _of(f"segment_{kind}", tf.constant(numbers))
        for name, numbers in SORTED.items()
        for kind in KINDS
    }
    x = np.random.default_rng(1).integers(-(2**30), 2**30, (1, ROWS, FEATURES)).astype(dtype)
    path = tmp_path / "m"
    model = _model(functions, dtype)
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    actual = open_runner(path, format, file.inputs, file.outputs).run({"x": x})
    for name, expected in model(x).items():
        np.testing.assert_array_equal(actual[name], expected, err_msg=name)


@pytest.mark.parametrize("format", CONVERTERS)
def test_sums_of_constants_for_the_same_place(format: str, tmp_path: Path) -> None:
    """The numbers of rows of segments; the converter of TFLite took the last for the sum."""
    places = tf.constant([[2], [0], [2], [1], [2]])
    functions: _Functions = {
        "mean": _of("unsorted_segment_mean", tf.constant(UNSORTED["in another order"]), 6),
        "scattered": lambda x: x[:, :5] * tf.scatter_nd(places, [1, 2, 3, 4, 5], [5])[:, None],
        "added": lambda x: (
            x[:, :3] + tf.tensor_scatter_nd_add([7, 8, 9], places, [1, 2, 3, 4, 5])[:, None]
        ),
    }
    x = np.random.default_rng(1).integers(-99, 99, (2, ROWS, FEATURES)).astype("int32")
    numbers = np.bincount(UNSORTED["in another order"], minlength=6)[:, None]
    sums = np.zeros((2, 6, FEATURES))
    for row, segment in enumerate(UNSORTED["in another order"]):
        sums[:, segment] += x[:, row]
    values = {
        "mean": sums / np.maximum(numbers, 1),
        "scattered": x[:, :5] * np.array([2, 4, 9, 0, 0])[:, None],
        "added": x[:, :3] + np.array([9, 12, 18])[:, None],
    }
    model = _model(functions, "int32")
    path = tmp_path / "m"
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    runner = open_runner(path, format, file.inputs, file.outputs)
    for k, sample in enumerate(x):
        actual = runner.run({"x": sample[None]})
        for name, value in values.items():
            np.testing.assert_allclose(actual[name][0], value[k], rtol=1e-6, err_msg=name)


def test_number_of_segments_is_known() -> None:
    shapes = {spec.name: spec.shape for spec in interface_of(_model(FUNCTIONS)).outputs}
    assert shapes["mean uneven"] == (None, 3, FEATURES)
    assert shapes["max with empty ones"] == (None, 8, FEATURES)
    assert shapes["keras sorted"] == (None, 8, FEATURES)
    assert shapes["larger than all"] == (None, 3, FEATURES)


@pytest.mark.parametrize("format", only(CONVERTERS, "onnx"))
def test_segments_of_a_saved_model(format: str, tmp_path: Path) -> None:
    functions = {"y": FUNCTIONS["mean uneven"], "z": FUNCTIONS["unsorted max with dropped ones"]}
    model = _model(functions)
    model.export(str(tmp_path / "m"), verbose=False)
    loaded = load_model(audit_file(tmp_path / "m")).model
    x = np.random.default_rng(1).normal(size=(1, ROWS, FEATURES)).astype("float32")
    interface = interface_of(loaded)
    path = tmp_path / "file"
    file = CONVERTERS[format].convert(loaded, interface, recipe_for("float32"), path)
    actual = open_runner(path, format, file.inputs, file.outputs).run({"x": x})
    for name, expected in model(x).items():
        np.testing.assert_allclose(actual[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)
