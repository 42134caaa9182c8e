"""Models whose outputs for a sample depend on the other samples of its batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn.runners import open_runner
from edgeattn_converters import ConversionOptions, ModelSource, QuantizationOptions, convert
from edgeattn_converters.reference.edge_cases import constant_numbers
from edgeattn_converters.reference.traced_values import changes_by_neighbors
from edgeattn_converters.tracing.tokens import TokenLimits
from edgeattn_converters.tracing.trace import interface_of, trace

STEPS, FEATURES = 6, 5


def inputs(seed: int, rows: int = 12) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(0, 1, (rows, STEPS, FEATURES)).astype("float32")


def model_of(function: Callable[[Any], Any]) -> Any:
    x = keras.Input((STEPS, FEATURES), name="x")
    h = function(layers.Dense(FEATURES, name="first")(x))
    model = keras.Model(x, layers.Dense(2, name="y")(layers.Flatten()(h)))
    generator = np.random.default_rng(4)
    for weight in model.trainable_weights:
        weight.assign(generator.normal(0, 0.5, weight.shape))
    return model


class Noise(layers.Layer):  # type: ignore[misc]
    """Random numbers in inference too."""

    def call(self, x: Any) -> Any:
        return x + keras.random.normal(ops.shape(x), seed=self.generator)

    def build(self, shape: Any) -> None:
        self.generator = keras.random.SeedGenerator(3)


def limited(h: Any) -> Any:
    """Only the first rows of the batch pass, as tokens of an expert with a fixed capacity do."""
    passing = ops.cumsum(ops.ones_like(h[:, :1, :1]), axis=0) <= 3.0
    return h * ops.cast(passing, "float32")


MIXED: dict[str, Callable[[Any], Any]] = {
    "largest_of_all": lambda h: h / ops.max(ops.abs(h)),
    "deviation_of_the_batch": lambda h: h / ops.std(h, axis=(0, 1), keepdims=True),
    "average_of_the_batch": lambda h: h - ops.mean(h, axis=0, keepdims=True),
    "softmax_of_the_batch": lambda h: h * layers.Softmax(axis=0)(h),
    "only_the_order": limited,
}
SEPARATE: dict[str, Callable[[Any], Any]] = {
    "layers": lambda h: layers.LSTM(4, return_sequences=True)(layers.BatchNormalization()(h)),
    "attention": lambda h: layers.MultiHeadAttention(2, 3)(h, h),
    # Division by the standard deviation of equal features amplifies rounding.
    "amplified_rounding": lambda h: layers.LayerNormalization(epsilon=1e-12)(
        ops.repeat(ops.sum(h, axis=-1, keepdims=True), 3, axis=-1) * 0.1
    ),
    "random": Noise(),
    "condition_on_each": lambda h: ops.where(ops.mean(h, (1, 2), keepdims=True) > 0, 2.0 * h, -h),
}


def changes(model: Any, samples: np.ndarray[Any, Any] | None = None) -> dict[str, float]:
    traced = trace(model, interface_of(model), batch=None, attention=False, freeze=False)
    return changes_by_neighbors(traced, {"x": inputs(1) if samples is None else samples})


def until_halted(x: Any) -> Any:
    """Steps towards a fixed point until the slowest sample of the batch has reached it."""

    def step(z: Any, change: Any) -> Any:
        after = ops.tanh(0.9 * z + x)
        return after, ops.max(ops.abs(after - z))

    start = (ops.zeros_like(x), ops.ones(()))
    return ops.while_loop(lambda z, change: change > 0.1, step, start)[0]


# Conditions on the values of a batch.
CONDITIONS: dict[str, Callable[[Any], Any]] = {
    "cond": lambda x: ops.cond(ops.mean(x) > 0, lambda: 2.0 * x, lambda: -x),
    "where": lambda x: ops.where(ops.mean(x) > 0, 2.0 * x, -x),
    "while_loop": until_halted,
}


@pytest.mark.parametrize("kind", only(CONDITIONS, "cond"))
def test_a_condition_that_differs_for_one_sample_alone_is_recognized(kind: str) -> None:
    x = keras.Input((2,), name="x")
    model = keras.Model(x, layers.Lambda(CONDITIONS[kind], output_shape=(2,), name="y")(x))
    samples = np.ones((40, 2), "float32")
    # The mean of this one is negative, or its first step is smaller than the limit.
    samples[37] = 0.05 if kind == "while_loop" else (-1.0, -2.0)
    difference = model.predict(samples, verbose=0) - model.predict(samples, 1, verbose=0)
    changed = np.abs(difference).max(axis=1)
    assert np.flatnonzero(changed > 1e-6).tolist() == [37]
    assert changes(model, samples) == pytest.approx({"y": changed[37]})
    if kind != "while_loop":
        assert changed[37] == 6.0  # 2 * -2 in the batch, 2 alone


# The shape of each begins with a free axis, as that of one row for each sample.
OTHER_ROWS: dict[str, Callable[[Any], Any]] = {
    "steps": lambda x: ops.reshape(x, (-1, FEATURES)),
    "half": lambda x: ops.reshape(x, (-1, 2 * STEPS, FEATURES)),
    "segments": lambda x: ops.segment_sum(x, ops.arange(ops.shape(x)[0]) // 3),
}


@pytest.mark.parametrize("kind", OTHER_ROWS)
def test_outputs_with_other_rows_than_samples_are_refused(kind: str) -> None:
    x = keras.Input((STEPS, FEATURES), name="x")
    model = keras.Model(x, layers.Lambda(OTHER_ROWS[kind], name="y")(x))
    with pytest.raises(UnsupportedModelError, match="rows for 12 samples"):
        changes(model)


@pytest.mark.parametrize("kind", only(MIXED, "largest_of_all", "only_the_order"))
def test_outputs_that_depend_on_other_samples_are_recognized(kind: str) -> None:
    model = model_of(MIXED[kind])
    found = changes(model)
    x = inputs(1)
    difference = model.predict(x, verbose=0) - model.predict(x, batch_size=1, verbose=0)
    assert list(found) == ["y"]
    assert 0 < found["y"] <= np.abs(difference).max() * 1.001


@pytest.mark.parametrize("kind", only(SEPARATE, "amplified_rounding", "random"))
def test_rounding_and_random_numbers_are_no_such_change(kind: str) -> None:
    assert changes(model_of(SEPARATE[kind])) == {}


@pytest.mark.parametrize("kind", only(MIXED, "largest_of_all"))
def test_files_compute_single_samples(kind: str, tmp_path: Path) -> None:
    model = model_of(MIXED[kind])
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "samples.npy", inputs(1))
    np.save(tmp_path / "calibration.npy", inputs(2, 40))
    quick = kind == "largest_of_all"
    source = ModelSource(tmp_path / "model.keras", samples=tmp_path / "samples.npy")
    conversion = convert(
        source,
        options=ConversionOptions(schemes=("float32",) if quick else ("float32", "int8")),
        quantization=QuantizationOptions(
            calibration=None if quick else tmp_path / "calibration.npy"
        ),
    )
    assert any(
        "other samples of its batch" in note for note in conversion.bundle.manifest.model["notes"]
    )
    fresh = inputs(3, 5)
    expected = model.predict(fresh, batch_size=1, verbose=0)
    for artifact in conversion.bundle.manifest.artifacts:
        assert artifact.inputs[0].shape[0] == 1
        path = conversion.bundle.path / artifact.path
        runner = open_runner(path, artifact.format, artifact.inputs, artifact.outputs)
        if artifact.scheme == "float32":
            np.testing.assert_allclose(runner.run({"x": fresh})["y"], expected, atol=1e-4)
    verdicts = {report.artifact.label: report.verdict for report in conversion.report.artifacts}
    assert {label: v for label, v in verdicts.items() if "float32" in label and v != "pass"} == {}


@pytest.mark.long
def test_larger_batches_are_refused(tmp_path: Path) -> None:
    model_of(MIXED["largest_of_all"]).save(tmp_path / "model.keras")
    source = ModelSource(tmp_path / "model.keras")
    options = ConversionOptions(schemes=("float32",), formats=("tflite",), batch=3)
    with pytest.raises(UnsupportedModelError, match=r"--batch 3.* depend on the other samples"):
        convert(source, options=options)


class OfLongest(layers.Layer):  # type: ignore[misc]
    """A mask as long as the longest sequence of the batch, as ``tf.sequence_mask`` makes it."""

    def call(self, x: Any, lengths: Any) -> Any:
        return x * tf.sequence_mask(lengths[:, 0], dtype=x.dtype)[:, :, None]

    def compute_output_shape(self, x_shape: Any, lengths_shape: Any) -> Any:
        return x_shape


def model_with_lengths() -> Any:
    x = keras.Input((STEPS, FEATURES), name="x")
    lengths = keras.Input((1,), dtype="int32", name="lengths")
    y = layers.Dense(2, name="y")(layers.GRU(4)(OfLongest()(x, lengths)))
    return keras.Model([x, lengths], y)


def test_a_sample_that_keras_computes_only_beside_others_depends_on_them() -> None:
    model = model_with_lengths()
    traced = trace(model, interface_of(model), batch=None, attention=False, freeze=False)
    samples = {"x": inputs(1), "lengths": np.full((12, 1), STEPS, "int32")}
    assert changes_by_neighbors(traced, samples) == {}
    samples["lengths"][7] = 2
    with pytest.raises(tf.errors.OpError):
        model({name: array[7:8] for name, array in samples.items()})
    assert changes_by_neighbors(traced, samples) == {"y": float("inf")}
    samples["lengths"][0] = 3  # of the rows that are computed alone first
    assert changes_by_neighbors(traced, samples) == {"y": float("inf")}


def test_lengths_of_all_samples_are_those_of_edge_cases(tmp_path: Path) -> None:
    """Neither Keras nor the files compute other lengths of a single sample."""
    model = model_with_lengths()
    model.save(tmp_path / "model.keras")
    (tmp_path / "own.py").write_text(
        "import keras\nimport tensorflow as tf\nfrom keras import layers\n"
        "from typing import Any\n\n\n" + inspect.getsource(OfLongest)
    )
    lengths = np.full((40, 1), STEPS, "int32")
    np.savez(tmp_path / "samples.npz", x=inputs(1, 40), lengths=lengths)
    source = ModelSource(
        tmp_path / "model.keras",
        samples=tmp_path / "samples.npz",
        custom_objects=tmp_path / "own.py",
    )
    conversion = convert(source, options=ConversionOptions(schemes=("float32",)))
    assert [item.verdict for item in conversion.report.artifacts] == ["pass", "pass"]
    with np.load(conversion.bundle.path / "reference.npz") as arrays:
        assert len(arrays["input/lengths"]) > 40
        assert np.unique(arrays["input/lengths"]).tolist() == [STEPS]


def test_inputs_of_the_same_number_are_constant() -> None:
    same = {
        "lengths": np.full((9, 1), 4, "int32"),
        "scalar": np.full(9, 4, "int64"),
        "steps": np.full((9, 6), 4, "int32"),
        "other": np.arange(9, dtype="int32")[:, None],
        "float": np.full((9, 1), 4, "float32"),
        "token": np.full((9, 1), 4, "int32"),
    }
    none = np.zeros(1, np.int64)
    assert constant_numbers(same, {"token": TokenLimits(none, none)}) == {"lengths", "scalar"}
    assert constant_numbers({"lengths": same["lengths"][:1]}, {}) == set()
