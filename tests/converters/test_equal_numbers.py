"""Edge cases in which numbers are equal are left out if the rounding of their average decides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from corpus.routes import in_this_process
from long_parameters import every_third, only

from edgeattn.cli.conversion import conversion_lines
from edgeattn.tensors import Array
from edgeattn_converters import convert
from edgeattn_converters.options import ConversionOptions, ModelSource
from edgeattn_converters.reference.edge_cases import InputProperties
from edgeattn_converters.reference.equal_numbers import uses_averages
from edgeattn_converters.reference.keras_outputs import keras_function
from edgeattn_converters.reference.shifted_means import shifted_means
from edgeattn_converters.reference.unmoved_rows import Changes
from edgeattn_converters.reference.usable_rows import UsableRows, usable_rows
from edgeattn_converters.tracing.trace import interface_of

ops = keras.ops
LENGTH, FRAMES = 16_000, 400
PRECISION = 2.0**-23


class Compute(keras.layers.Layer):  # type: ignore[misc]
    """A function of TensorFlow."""

    def __init__(self, function: Callable[[Any], Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function

    def call(self, x: Any) -> Any:
        return self.function(x)


def model_of(function: Callable[[Any], Any], shape: tuple[int, ...] = (LENGTH,)) -> Any:
    inputs = keras.Input(shape, name="x")
    return keras.Model(inputs, Compute(function, name="y")(inputs))


def decibels(x: Any) -> Any:
    return tf.math.log(tf.abs(x) + 1e-6)


def frames(x: Any) -> Any:
    return tf.reshape(decibels(x), (-1, FRAMES, LENGTH // FRAMES))


def standardized(h: Any, axis: Any = -1) -> Any:
    """As in SpeechCmdRecognition."""
    mean = tf.reduce_mean(h, axis, keepdims=True)
    return (h - mean) / tf.math.reduce_std(h, axis, keepdims=True)


def with_epsilon(h: Any) -> Any:
    mean, variance = tf.nn.moments(h, -1, keepdims=True)
    return (h - mean) / tf.sqrt(variance + 1e-7)


def by_sums(h: Any) -> Any:
    """The variance is the mean of squares, without the square of the mean."""
    mean = tf.reduce_sum(h, -1, keepdims=True) / LENGTH
    square = tf.reduce_sum(h * h, -1, keepdims=True) / LENGTH
    return (h - mean) / tf.sqrt(tf.maximum(square - mean * mean, 1e-9))


def squared_distance(h: Any) -> Any:
    """1 whatever the rounding is, but 0 for an exact average."""
    deviation = tf.math.reduce_std(h, -1, keepdims=True)
    return tf.square((h - tf.reduce_mean(h, -1, keepdims=True)) / (deviation + 1e-12))


def pooled(h: Any) -> Any:
    """The contrast in windows."""
    rows = tf.reshape(h, (-1, 1, LENGTH, 1))
    size = [1, 1, 500, 1]
    mean = tf.nn.avg_pool2d(rows, size, 1, "SAME")
    variance = tf.nn.avg_pool2d(tf.square(rows - mean), size, 1, "SAME")
    return tf.reshape((rows - mean) / tf.sqrt(variance + 1e-10), (-1, LENGTH))


def segments(h: Any, total: Callable[[Any], Any]) -> Any:
    """The difference from the average of each of eight segments; the axes are exchanged."""
    mean = total(tf.transpose(h))
    mean = tf.transpose(tf.repeat(mean, LENGTH // 8, axis=0))
    return (h - mean) / (tf.reduce_mean(tf.abs(h - mean), -1, keepdims=True) + 1e-9)


IDS = np.repeat(np.arange(8), LENGTH // 8)


def fused(h: Any) -> Any:
    """With the mean and variance of the values."""
    rows = tf.reshape(h, (1, 1, LENGTH, 1))
    ones = tf.ones(1)
    y = tf.compat.v1.nn.fused_batch_norm(rows, ones, 0 * ones, epsilon=1.001e-5)[0]
    return tf.reshape(y, (-1, LENGTH))


def to_range(h: Any) -> Any:
    low, high = tf.reduce_min(h, -1, keepdims=True), tf.reduce_max(h, -1, keepdims=True)
    return (h - low) / tf.maximum(high - low, 1e-12)


# Functions of a row of zeros whose results rounding decides.
UNSTABLE: dict[str, Callable[[Any], Any]] = {
    "standardized": lambda x: standardized(decibels(x)),
    "over the batch": lambda x: standardized(decibels(x), None),
    "over frames": lambda x: standardized(frames(x), 1),
    "over both axes": lambda x: standardized(frames(x), (1, 2)),
    "with epsilon": lambda x: with_epsilon(decibels(x)),
    "sums": lambda x: by_sums(decibels(x)),
    "squared distance": lambda x: squared_distance(decibels(x)),
    "pooling": lambda x: pooled(decibels(x)),
    "segments": lambda x: segments(
        decibels(x), lambda h: tf.math.unsorted_segment_sum(h, IDS, 8) / (LENGTH // 8)
    ),
    "sorted segments": lambda x: segments(decibels(x), lambda h: tf.math.segment_mean(h, IDS)),
    "fused": lambda x: fused(decibels(x)),
    "range": lambda x: to_range(tf.math.log(tf.abs(x[:, 3:]) + 1.7)),
    "condition": lambda x: tf.cond(
        tf.reduce_any(x > 1e9), lambda: x, lambda: standardized(decibels(x))
    ),
}
# Those of the quick tests.
QUICK = ("standardized", "with epsilon", "segments")
# Functions of it that have a result.
STABLE: dict[str, Callable[[Any], Any]] = {
    "average": lambda x: tf.reduce_mean(frames(x)[:, :, 0], -1, keepdims=True),
    "norm": lambda x: tf.nn.l2_normalize(decibels(x), -1),
    "decibels and their sum": lambda x: decibels(x) + tf.reduce_sum(tf.abs(x)) / 1e9,
    "range": lambda x: to_range(tf.abs(x) + 1.7),
    "count": lambda x: x / tf.reduce_sum(tf.cast(x > -1e9, tf.float32), -1, keepdims=True),
    "mean of pixels": lambda x: (
        x / 8 + tf.cast(tf.equal(tf.reduce_sum(tf.ones_like(x), -1, keepdims=True), 16e3), x.dtype)
    ),
    "with large epsilon": lambda x: (
        (frames(x) - tf.reduce_mean(frames(x), 1, keepdims=True))
        / tf.sqrt(tf.math.reduce_variance(frames(x), 1, keepdims=True) + 1e4)
    ),
}


def of_each(h: Any, mean: Any) -> Any:
    return (h - mean) / tf.sqrt(tf.square(h - mean) + 1e-7)


# Functions whose averages are each of one number, which does not round.
ALONE: dict[str, Callable[[Any], Any]] = {
    "moments": lambda h: with_epsilon(h[..., None])[..., 0],
    "sum": lambda h: of_each(h, tf.reduce_sum(h[..., None], -1)),
    "largest": lambda h: of_each(h, tf.reduce_max(h[..., None], -1)),
    "pooling": lambda h: of_each(
        h, tf.nn.avg_pool2d(h[:, :, None, None], 1, 1, "SAME")[:, :, 0, 0]
    ),
    "segments": lambda h: of_each(
        h, tf.transpose(tf.math.segment_mean(tf.transpose(h), np.arange(LENGTH)))
    ),
    "fused": lambda h: tf.compat.v1.nn.fused_batch_norm(
        h[:, None, None, :], tf.ones(LENGTH), tf.ones(LENGTH), epsilon=1.001e-5
    )[0][:, 0, 0],
}


def samples() -> Array:
    """Two samples, and as extremes a larger sample and the row that is filled in."""
    x = np.random.default_rng(3).normal(size=(4, LENGTH)).astype("float32")
    x[2] *= 30
    return x


def rows_of(model: Any, x: Array, *, check: bool = True) -> UsableRows:
    """The rows of two samples, and two extremes."""
    interface = interface_of(model)
    run = keras_function(model, interface, attention=False)
    assert not check or uses_averages(run.traced.function)

    def run_rows(inputs: Any) -> Any:
        rows = [run({"x": row[None]}) for row in inputs["x"]]
        return type(rows[0])({"y": np.concatenate([row.outputs["y"] for row in rows])}, {}, {})

    return usable_rows(
        run_rows,
        {"x": x},
        run_rows({"x": x}),
        (2, 2),
        InputProperties({}, {}),
        real=True,
        changes=Changes(averages=shifted_means(model, interface, attention=False, alone=True)),
    )


@pytest.mark.parametrize("name", only(UNSTABLE, *QUICK))
def test_zeros_of_a_long_input_are_left_out(name: str) -> None:
    """A change of the last digit alone did not show them."""
    x = samples()
    x[3] = 0
    rows = rows_of(model_of(UNSTABLE[name]), x)
    np.testing.assert_array_equal(rows.all, [0, 1, 2])
    assert rows.unstable_averages + rows.not_finite == 1


@pytest.mark.parametrize("name", every_third(list(STABLE)))
def test_zeros_stay_if_rounding_does_not_decide(name: str) -> None:
    x = samples()
    x[3] = 0
    rows = rows_of(model_of(STABLE[name]), x)
    np.testing.assert_array_equal(rows.all, np.arange(4))


@pytest.mark.parametrize("name", only(ALONE, "moments", "fused"))
def test_rows_stay_if_each_average_is_of_one_number(name: str) -> None:
    x = samples()
    x[3] = 0
    function = ALONE[name]
    rows = rows_of(model_of(lambda x: function(decibels(x))), x)
    np.testing.assert_array_equal(rows.all, np.arange(4))


def clipped(x: Any) -> Any:
    return standardized(tf.clip_by_value(x, -0.7, 0.7))


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (clipped, 3.0),
        pytest.param(clipped, -90.0, marks=pytest.mark.long),
        pytest.param(lambda x: standardized(tf.nn.relu6(x) / 7), 40.0, marks=pytest.mark.long),
        (lambda x: standardized(decibels(tf.nn.relu(x))), -3.0),
    ],
)
def test_other_rows_are_left_out_if_numbers_are_equal_within_the_model(
    function: Callable[[Any], Any], value: float
) -> None:
    """Their inputs are not zeros, and slightly other inputs are clipped to the same numbers."""
    x = samples()
    x[3] = value
    x[3, ::2] *= 1.5
    rows = rows_of(model_of(function), x)
    np.testing.assert_array_equal(rows.all, [0, 1, 2])
    assert rows.unstable_averages + rows.not_finite == 1


def test_rows_whose_clipped_numbers_are_not_divided_stay() -> None:
    x = samples()
    x[3] = 3
    rows = rows_of(model_of(lambda x: tf.clip_by_value(x, -0.7, 0.7)), x, check=False)
    np.testing.assert_array_equal(rows.all, np.arange(4))


@pytest.mark.parametrize(
    "name",
    only(["standardized", "over frames", "with epsilon", "segments"], "segments"),
)
def test_the_other_rows_show_a_wrong_average(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them shows an average that is wrong by a thousandth, beyond the usual limit."""
    x = samples()
    x[3] = 0
    model = model_of(UNSTABLE[name])
    rows = rows_of(model, x).all
    right = np.concatenate([model(x[k : k + 1]) for k in rows])
    mean, total = tf.reduce_mean, tf.math.unsorted_segment_sum
    monkeypatch.setattr(tf, "reduce_mean", lambda *a, **k: mean(*a, **k) * 1.001)
    monkeypatch.setattr(tf.math, "unsorted_segment_sum", lambda *a: total(*a) * 1.001)
    monkeypatch.setattr(tf.nn, "moments", wrong_moments)
    wrong = np.concatenate([model(x[k : k + 1]) for k in rows])
    moved = np.abs(wrong - right) / (1e-5 + 1e-4 * np.abs(right))
    assert (moved.reshape(len(rows), -1).max(axis=1) > 5).all()


@pytest.mark.long
def test_right_files_pass_and_a_wrong_average_fails(
    tmp_path: Path, edgeattn: Callable[..., Any]
) -> None:
    """The files of one model are compared with one that adds a thousandth to the average."""
    source = saved(tmp_path, 1.0)
    bundle = tmp_path / "model.edge"
    result = convert(source, bundle, options=ConversionOptions(schemes=["float32"]))
    assert [item.verdict for item in result.report.artifacts] == ["pass"] * 2
    text = "\n".join(conversion_lines(result, verbose=False))
    assert (
        "1 edge case with zeros or equal numbers change with rounding, such as that of an average"
        in text
    )
    (tmp_path / "other").mkdir()
    other = saved(tmp_path / "other", 1.001)
    for model, code in ((source, 0), (other, 1)):
        for name in ("tflite", "onnx"):
            (file,) = bundle.glob(f"*.{name}")
            with in_this_process():
                result = edgeattn("validate", file, "--model", model.path, "--data", model.samples)
            assert result.code == code, result.out + result.err


def saved(folder: Path, factor: float) -> ModelSource:
    """A dense layer behind a normalization by ``factor`` times the average."""
    inputs = keras.Input((LENGTH,), name="x")
    h = ops.log(ops.abs(inputs) + 1e-6)
    mean = ops.mean(h, axis=-1, keepdims=True)
    h = (h - factor * mean) / ops.std(h, axis=-1, keepdims=True)
    model = keras.Model(inputs, keras.layers.Dense(3, name="y")(h[:, :50]))
    for weight in model.weights:
        weight.assign(np.random.default_rng(1).normal(size=weight.shape))
    model.save(folder / "model.keras")
    np.save(folder / "x.npy", samples().repeat(4, axis=0))
    return ModelSource(folder / "model.keras", samples=folder / "x.npy")


def wrong_moments(h: Any, axis: int, keepdims: bool) -> Any:
    mean = tf.reduce_mean(h, axis, keepdims=keepdims)
    return mean, tf.math.reduce_variance(h, axis, keepdims=keepdims)


def error_of(count: int) -> float:
    """The largest relative error of a sum of equal numbers in sequence, and of the division."""
    return max(count / 8 + 1, 4) * PRECISION


FIRST = np.arange(300)
# The kind of operation, equal numbers, and the relative error of the result that is tried.
ERRORS: dict[str, tuple[Callable[[Any], Any], float, float]] = {
    "mean": (lambda x: tf.reduce_mean(x, 1), 0.1, error_of(1000)),
    "sum": (lambda x: tf.reduce_sum(x, 1), 0.1, error_of(1000)),
    "of few": (lambda x: tf.reduce_mean(x[:, :5], 1), 0.1, error_of(1)),
    "sum of counts": (lambda x: tf.reduce_sum(x, 1), 3.0, 0.0),
    "sum of shares": (lambda x: tf.reduce_sum(x, 1), 0.75, 0.0),
    "sum beyond 2**24": (lambda x: tf.reduce_sum(x, 1), 50_001.0, error_of(1000)),
    "mean of counts": (lambda x: tf.reduce_mean(x, 1), 3.0, error_of(1)),
    "pooling": (lambda x: tf.nn.avg_pool1d(x[..., None], 100, 100, "VALID"), 0.1, error_of(100)),
    "pooling of volumes": (
        lambda x: tf.nn.avg_pool3d(
            tf.reshape(x, (1, 10, 10, 10, 1)), (5, 10, 4), (5, 10, 2), "SAME"
        ),
        0.1,
        error_of(200),
    ),
    "segments": (
        lambda x: tf.math.unsorted_segment_sum(x[0], np.arange(1000) // 200 - 1, 5)[None],
        0.1,
        error_of(200),
    ),
    "sparse segments": (
        lambda x: tf.reshape(tf.sparse.segment_mean(x[0], FIRST, FIRST // 150), (1, 2)),
        0.1,
        error_of(150),
    ),
    "sparse segments, one empty": (
        lambda x: tf.sparse.segment_sum(x[0], FIRST, FIRST // 150, num_segments=3)[None],
        0.1,
        error_of(150),
    ),
}


# Those of the quick tests, of each kind one.
QUICK_ERRORS = ("mean", "sum of counts", "pooling", "segments", "sparse segments, one empty")


@pytest.mark.parametrize("name", only(ERRORS, *QUICK_ERRORS))
def test_the_error_of_a_sum_grows_with_its_terms(name: str) -> None:
    """By an eighth of the precision for each, also if the error in TensorFlow is smaller."""
    function, value, error = ERRORS[name]
    model = model_of(function, (1000,))
    x = np.full((1, 1000), value, "float32")
    averaged = shifted_means(model, interface_of(model), attention=False)
    exact = averaged({"x": x}, 0.0)["y"]
    largest, ones = model(x).numpy(), np.ones_like(x)
    counts = np.round(model(ones).numpy())
    np.testing.assert_array_equal(exact, (np.float32(value) * counts).astype("float32"))
    np.testing.assert_allclose(largest, exact, rtol=max(error, 1e-7))
    for direction in (-1, 1):
        moved = averaged({"x": x}, 0.0, direction)["y"].astype(float) / np.where(exact, exact, 1)
        expected = np.where(exact, 1 + direction * error, 0)
        np.testing.assert_allclose(moved, expected, rtol=2 * PRECISION)
    x[0, ::3] *= 1.1
    other = averaged({"x": x}, 0.25, 1)["y"]
    np.testing.assert_allclose(other, 1.25 * model(x).numpy(), rtol=1e-6)


def test_sums_of_equal_numbers_are_within_the_largest_error() -> None:
    """Not within one that grows with the root: each addition rounds in the same direction."""
    values = np.geomspace(1, 2, 5000).astype("float32")
    total = np.zeros_like(values)
    for count in range(1, 10_001):
        total += values
        if count in (16, 100, 1000, 10_000):
            errors = np.abs(total / (count * values.astype(float)) - 1)
            assert 0.8 * error_of(count) - 4 * PRECISION < errors.max() < error_of(count)
    assert errors.max() > 10 * np.sqrt(count) * PRECISION


def test_numbers_that_differ_by_rounding_are_equal() -> None:
    """Their average is that of TensorFlow, changed; others change by the share alone."""
    model = model_of(lambda x: tf.reduce_mean(x, 1), (1000,))
    averaged = shifted_means(model, interface_of(model), attention=False)
    x = np.full((2, 1000), 0.1, "float32")
    x[0, 5] *= 1 + 4 * PRECISION
    x[1, 5] *= 1 + 40 * PRECISION
    expected = model(x).numpy()
    np.testing.assert_array_equal(averaged({"x": x}, 0.0)["y"], expected)
    moved = averaged({"x": x}, 0.0, 1)["y"]
    np.testing.assert_allclose(moved / expected - 1, [error_of(1000), 0], atol=2 * PRECISION)


def test_models_without_averages_are_not_traced_again() -> None:
    inputs = keras.Input((4, 3), name="x")
    normalized = keras.layers.BatchNormalization()(keras.layers.Dense(3)(inputs))
    for outputs, expected in (
        (normalized, False),
        (keras.layers.LayerNormalization()(inputs), True),
    ):
        model = keras.Model(inputs, outputs)
        run = keras_function(model, interface_of(model), attention=False)
        assert uses_averages(run.traced.function) == expected
