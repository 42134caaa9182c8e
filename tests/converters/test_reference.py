"""The samples and edge cases of a reference, and the rows that Keras rules out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import artifacts
import keras
import numpy as np
import pytest
from keras import ops
from long_parameters import only

import models
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.errors import UnsupportedModelError
from edgeattn.tensors import TensorSpec
from edgeattn.validation.comparison import comparison_checks
from edgeattn.validation.validate import validate_isolated
from edgeattn_converters import calibration
from edgeattn_converters.options import ConversionOptions, QuantizationOptions
from edgeattn_converters.reference import (
    other_lengths,
    reference_file,
    reference_samples,
    size_limit,
)
from edgeattn_converters.reference.edge_cases import (
    EXTREMES,
    ROUND_EXTREMES,
    InputProperties,
    edge_cases,
)
from edgeattn_converters.reference.keras_outputs import KerasFunction, keras_function, predict
from edgeattn_converters.reference.plausible_inputs import KINDS, ROWS, plausible_inputs
from edgeattn_converters.reference.usable_rows import UsableRows
from edgeattn_converters.tracing.free_time import free_model
from edgeattn_converters.tracing.trace import interface_of

layers = keras.layers


def write(
    model: Any, folder: Path, *, attention: bool = False, **files: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest's entry of a reference, by default one without maps, and its arrays."""
    path = folder / "reference.npz"
    entry = reference_file.write(
        model,
        interface_of(model),
        path,
        samples=files.get("samples"),
        attention=attention,
        calibration_file=files.get("calibration"),
    )
    with np.load(path) as arrays:
        rows = {name: arrays[name] for name in arrays.files}
    assert {len(array) for name, array in rows.items() if name != "target"} == {
        entry["samples"] + entry["edge_cases"]
    }
    return entry, rows


def saved(folder: Path, x: np.ndarray, **labels: np.ndarray) -> Path:
    path = folder / "data.npz"
    np.savez(path, x=x, **labels)
    return path


def dense(*before: Any, features: int = 3) -> Any:
    inputs = keras.Input((features,), name="x")
    states = inputs
    for layer in before:
        states = layer(states)
    return models.filled(keras.Model(inputs, layers.Dense(2, name="y")(states)))


def masked_pooling() -> Any:
    """Mean embeddings of the words of a text: 0 / 0 for a text of padding alone."""
    inputs = keras.Input((8,), dtype="int32", name="x")
    words = layers.Embedding(30, 5, mask_zero=True)(inputs)
    pooled = layers.GlobalAveragePooling1D()(words)
    return models.filled(keras.Model(inputs, layers.Dense(2, name="y")(pooled)))


# What Keras computes for arrays


@pytest.mark.parametrize(
    "dtype", only(["float16", "float32", "float64", "int32"], "float32", "int32")
)
@pytest.mark.parametrize("named", [False, True])
def test_outputs_are_those_of_keras_for_arrays(dtype: str, *, named: bool) -> None:
    """The last of three batches has 6 rows; two inputs are no inputs and labels."""
    inputs = {name: keras.Input((4,), dtype=dtype, name=name) for name in ("a", "b")}
    outputs = {"sum": layers.Add()(list(inputs.values())), "y": layers.Dense(2)(inputs["b"])}
    if named:
        model = keras.Model(inputs, outputs)
    else:
        model = keras.Model(list(inputs.values()), list(outputs.values()))
    rng = np.random.default_rng(0)
    rows = {name: (9 * rng.random((70, 4))).astype(dtype) for name in inputs}
    expected = model.predict(rows if named else list(rows.values()), verbose=0)
    actual = predict(model, interface_of(model), rows)
    for value, right in zip(actual.values(), expected.values() if named else expected, strict=True):
        assert value.dtype == right.dtype
        np.testing.assert_array_equal(value, right)


# Samples that are set aside from the calibration file


@pytest.mark.parametrize(("count", "expected"), [(400, 64), (100, 20), (5, 1)])
def test_the_reference_is_drawn_from_the_calibration_file(
    count: int, expected: int, tmp_path: Path
) -> None:
    x = np.random.default_rng(0).random((count, 3)).astype("float32")
    path = saved(tmp_path, x)
    model = dense()
    entry, arrays = write(model, tmp_path, calibration=path)
    assert (entry["kind"], entry["source"], entry["samples"]) == (
        *("calibration", "data.npz"),
        expected,
    )
    known = {row.tobytes() for row in x}
    drawn = [row.tobytes() for row in arrays["input/x"][:expected]]
    assert len(set(drawn) & known) == expected
    evaluation = {"x": arrays["input/x"]}
    used = calibration.read(path, interface_of(model), evaluation).inputs["x"]
    assert {row.tobytes() for row in used} == known - set(drawn)


@pytest.mark.parametrize("row", range(10))
def test_samples_with_extremes_of_an_input_stay_in_the_calibration(
    row: int, tmp_path: Path
) -> None:
    x = np.random.default_rng(0).random((10, 3)).astype("float32")
    x[row, 1], x[row - 1, 2] = 2, -2
    rows = calibration.set_aside(saved(tmp_path, x), interface_of(dense()), {}, 64)
    assert rows is not None
    assert len(rows["x"]) == 2
    assert np.abs(rows["x"]).max() < 1


def test_repeated_calibration_samples_are_on_one_side_only(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((10, 3)).astype("float32")
    path = saved(tmp_path, np.repeat(x, 7, axis=0))
    model = dense()
    entry, arrays = write(model, tmp_path, calibration=path)
    assert entry["samples"] == 2
    used = calibration.read(path, interface_of(model), {"x": arrays["input/x"]}).inputs["x"]
    assert len(used) == 8 * 7


def test_a_tiny_calibration_file_is_not_divided(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((4, 3)).astype("float32")
    entry, _ = write(dense(), tmp_path, calibration=saved(tmp_path, x))
    assert (entry["kind"], entry["source"]) == ("synthetic", "seeded")
    (note,) = entry["notes"]
    assert "data.npz has too few samples to set some aside" in note


def test_samples_come_before_calibration(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((7, 3)).astype("float32")
    np.savez(tmp_path / "calibration.npz", x=x + 1)
    entry, arrays = write(
        dense(),
        tmp_path,
        samples=saved(tmp_path, x, y=np.arange(7)),
        calibration=tmp_path / "calibration.npz",
    )
    assert (entry["kind"], entry["source"], entry["samples"]) == ("samples", "data.npz", 7)
    np.testing.assert_array_equal(arrays["input/x"][:7], x)
    np.testing.assert_array_equal(arrays["target"], np.arange(7))


@pytest.mark.long
def test_int8_is_compared_on_inputs_like_those_it_was_calibrated_on(tmp_path: Path) -> None:
    """Integers saturate beyond [0, 1], so that normally distributed inputs would fail the file."""
    from edgeattn_converters import convert

    model = dense(layers.Dense(16, activation="relu"), layers.Dense(16, activation="relu"))
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).random((200, 3)).astype("float32")
    options = ConversionOptions(schemes=("int8",), formats=("onnx",))
    calibrated = QuantizationOptions(calibration=saved(tmp_path, x))
    conversion = convert(tmp_path / "model.keras", options=options, quantization=calibrated)
    assert conversion.exit_code == 0
    assert conversion.bundle.manifest.reference_kind == "calibration"
    (artifact,) = conversion.bundle.manifest.artifacts
    assert artifact.achieved["calibration"]["samples"] == 160
    # The same file, compared on synthetic samples, proves nothing.
    bundle = conversion.bundle
    entry, _ = write(model, bundle.path)
    artifacts.edit_manifest(bundle.path, lambda data: data["reference"].update(entry))
    artifacts.rehash(bundle.path)
    report = validate_isolated(Bundle.open(bundle.path), bundle.manifest.artifacts)
    assert (report.verdict, report.exit_code) == ("inconclusive", 6)
    assert {check.metric for check in report.artifacts[0].unproven} == {"snr_db"}


# Rows on which Keras is not finite


@pytest.mark.parametrize("real", [False, True])
def test_padding_alone_does_not_stop_a_conversion(real: bool, tmp_path: Path) -> None:
    model = masked_pooling()
    files = {}
    if real:
        x = np.random.default_rng(0).integers(1, 30, (9, 8))
        files["samples"] = saved(tmp_path, x)
    entry, arrays = write(model, tmp_path, **files)
    assert np.isfinite(arrays["output/y"]).all()
    assert (arrays["input/x"] != 0).any(axis=1).all()
    assert entry["not_finite"] >= 1
    assert entry["samples"] == (9 if real else ROWS)
    # 7 lengths and 4 rows with all words.
    total = entry["samples"] + 7 + 4 + EXTREMES
    assert len(arrays["input/x"]) == total - entry["not_finite"]
    assert entry["notes"] == []


def test_maps_of_rows_that_are_masked_throughout_are_left_out(tmp_path: Path) -> None:
    """A softmax of -infinity alone is NaN in the map, although the output is finite."""
    inputs = keras.Input((5,), dtype="int32", name="x")
    words = layers.Embedding(9, 3)(inputs)
    scores = layers.Dense(1)(words)[..., 0] + keras.ops.where(inputs > 0, 0.0, -np.inf)
    weights = keras.ops.softmax(scores)[..., None]
    pooled = keras.ops.nan_to_num(keras.ops.sum(words * weights, axis=1))
    model = models.filled(keras.Model(inputs, layers.Dense(2, name="y")(pooled)))
    x = np.random.default_rng(0).integers(1, 9, (6, 5))
    x[2] = 0
    path = tmp_path / "reference.npz"
    entry = reference_file.write(
        model, interface_of(model), path, samples=saved(tmp_path, x), attention=True
    )
    with np.load(path) as arrays:
        (map_,) = [arrays[name] for name in arrays.files if name.startswith("attention/")]
        rows = arrays["input/x"]
    assert np.isfinite(map_).all()
    assert (rows != 0).any(axis=1).all()
    assert entry["samples"] == 5
    assert entry["not_finite"] >= 2  # the sample and the extreme of zeros


class Logarithm(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return keras.ops.log(x)


def test_real_samples_that_are_not_finite_are_left_out_with_a_note(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((9, 3)).astype("float32") + 0.5
    x[[2, 5]] = -1
    entry, arrays = write(dense(Logarithm()), tmp_path, samples=saved(tmp_path, x, y=np.arange(9)))
    assert entry["samples"] == 7
    assert "no finite outputs for 2 of 9 samples in data.npz" in entry["notes"][0]
    np.testing.assert_array_equal(arrays["input/x"][:7], x[[0, 1, 3, 4, 6, 7, 8]])
    np.testing.assert_array_equal(arrays["target"], [0, 1, 3, 4, 6, 7, 8])
    with pytest.raises(UnsupportedModelError, match="for every sample"):
        write(dense(Logarithm()), tmp_path, samples=saved(tmp_path, -x[2:3] * 0 - 1))


class Inverse(layers.Layer):  # type: ignore[misc]
    """Of matrices with two rows, most of whose extremes in a reference have no inverse."""

    def call(self, x: Any) -> Any:
        return keras.ops.reshape(keras.ops.inv(keras.ops.reshape(x, (-1, 2, 2))), (-1, 4))


@pytest.mark.parametrize("integers", only([False, True], False))
@pytest.mark.parametrize("real", only([True, False], True))
def test_rows_that_keras_cannot_compute_are_left_out(
    integers: bool, real: bool, tmp_path: Path
) -> None:
    """TensorFlow stops with an error for a whole batch if one matrix has no inverse."""
    model = dense(Inverse(), features=4)
    if integers:
        model = keras.Model(model.input, keras.ops.argmax(model.output, axis=-1))
    if not real:
        entry, arrays = write(model, tmp_path)
        assert entry["not_finite"] >= 1 <= entry["samples"]
        selected = reference_samples.selection_inputs(model, interface_of(model), None)
        assert len(selected["x"]) > 1
        return
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    x[3] = 1
    entry, arrays = write(model, tmp_path, samples=saved(tmp_path, x))
    assert "no finite outputs for 1 of 5 samples in data.npz" in entry["notes"][0]
    np.testing.assert_array_equal(arrays["input/x"][:4], x[[0, 1, 2, 4]])
    with pytest.raises(UnsupportedModelError, match=r"cannot compute .*not invertible"):
        write(model, tmp_path, samples=saved(tmp_path, 0 * x))


def test_synthetic_samples_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    model = dense(Logarithm())
    entry, arrays = write(model, tmp_path)
    assert 1 <= entry["samples"] < ROWS
    assert (arrays["input/x"] > 0).all()
    selected = reference_samples.selection_inputs(model, interface_of(model), None)
    assert np.isfinite(predict(model, interface_of(model), selected)["y"]).all()
    always = dense(Logarithm(), layers.Rescaling(0.0, -1.0), Logarithm())
    with pytest.raises(UnsupportedModelError, match="every synthetic sample") as caught:
        write(always, tmp_path)
    assert "--samples FILE" in str(caught.value.hint)


# Rows on which Keras is unstable


def test_a_model_that_is_unstable_everywhere(tmp_path: Path) -> None:
    """The sine of millions changes with the last digit of its argument."""
    inputs = keras.Input((3,), name="x")
    normal = layers.Normalization(mean=10.0, variance=1.0)(inputs)
    waves = keras.ops.sin(1e6 * (normal + 10.0))
    model = models.filled(keras.Model(inputs, layers.Dense(2, name="y")(waves)))
    entry, _ = write(model, tmp_path)
    assert (entry["stable"], entry["samples"]) == (False, ROWS)
    assert "--samples FILE" in entry["notes"][0]
    x = np.random.default_rng(0).random((9, 3)).astype("float32")
    entry, _ = write(model, tmp_path, samples=saved(tmp_path, x))
    assert (entry["stable"], entry["samples"], entry["notes"]) == (True, 9, [])


def test_extremes_that_rounding_to_float16_changes_come_last(tmp_path: Path) -> None:
    """A softmax of scores up to 60,000: stable to float32 rounding mostly, not to float16's."""
    inputs = keras.Input((5,), name="x")
    model = keras.Model(inputs, layers.Softmax(name="y")(10.0 * inputs))
    entry, arrays = write(model, tmp_path)
    first = entry["samples"] + entry["ordinary_edge_cases"]
    assert 0 < entry["float16_edge_cases"] < entry["edge_cases"]
    x = arrays["input/x"][first:]
    moved = np.zeros(len(x))
    for sign in (-1, 1):
        changed = x * (1 + sign * 2.0**-11 * np.float32([1, -1, 1, -1, 1]))
        outputs = model.predict(changed.astype("float32"), verbose=0)
        moved = np.maximum(moved, np.abs(outputs - arrays["output/y"][first:]).max(axis=1))
    count = entry["float16_edge_cases"]
    # 50 dB are 0.0032 of the length of an output, which is at least 0.45 for five classes.
    assert moved[:count].max() < 0.0064 < moved[count:].max()


# Extremes


def test_extremes_have_several_magnitudes_and_are_not_round(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((9, 50)).astype("float32")
    model = dense(features=50)
    entry, arrays = write(model, tmp_path, samples=saved(tmp_path, x))
    rows = arrays["input/x"][-EXTREMES:]
    assert entry["left_out"] == 0
    largest = np.abs(rows[ROUND_EXTREMES:]).max(axis=1) / x.max()
    decades = np.floor(np.log10(largest)).astype(int)
    assert {-1, 0, 1} <= set(decades)
    for row in rows[ROUND_EXTREMES:]:
        assert len(np.unique(row)) == len(row)
        assert (row.astype("float16") != row).any()
    assert any((row > 0).all() for row in rows[ROUND_EXTREMES:])
    assert any(0.2 < (row > 0).mean() < 0.8 for row in rows[ROUND_EXTREMES:])


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [("int32", -300, 301), ("uint8", 0, 255), ("int8", -128, 127)]
)
def test_integers_of_edge_cases_have_other_signs_and_sizes(dtype: str, low: int, high: int) -> None:
    """Of samples from 0 to 1: a third as these, and the others from 10 and 300 further on."""
    samples = np.random.default_rng(0).integers(0, 2, (16, 900)).astype(dtype)
    rows, ordinary = edge_cases(
        {"n": samples}, (TensorSpec("n", (None, 900), dtype),), InputProperties({}, {})
    )
    assert ordinary == 0
    extremes = rows["n"][ROUND_EXTREMES:].astype(int)
    assert (extremes[:4].min(), extremes[:4].max()) == (0, 1)
    assert (extremes[4:8].min(), extremes[4:8].max()) == (max(low, -10), 11)
    assert low <= extremes[8:].min() <= max(low, -290)
    assert min(high, 290) <= extremes[8:].max() <= high


def test_lost_precision_beyond_the_samples_fails(tmp_path: Path) -> None:
    """Inputs over 1 are rounded to float16, of a file whose samples are sixteenths up to 1."""
    x = np.random.default_rng(0).integers(0, 17, (40, 7, 3)) / 16
    inputs = keras.Input((7, 3), name="x")
    states = layers.GRU(5)(inputs)
    model = models.filled(keras.Model(inputs, layers.Dense(2, name="y")(states)))
    entry, arrays = write(model, tmp_path, samples=saved(tmp_path, x.astype("float32")))
    inputs_of_all, expected = arrays["input/x"], arrays["output/y"]
    rounded = np.where(
        np.abs(inputs_of_all) > 1, inputs_of_all.astype("float16"), inputs_of_all
    ).astype("float32")
    interface = interface_of(model)
    artifact = Artifact("onnx", "float32", "m.onnx", "", 1, interface.inputs, interface.outputs)

    def failed(count: int | None) -> set[str]:
        outputs = model.predict(rounded[:count], verbose=0)
        checks = comparison_checks(
            artifact,
            {"y": expected[:count]},
            {"y": outputs},
            {"y": outputs[:1]},
            entry["samples"],
        )
        return {check.metric for check in checks if check.passed is False}

    assert failed(entry["samples"]) == set()
    assert failed(None) == {"tolerance_ratio"}


# Synthetic samples


def synthetic(model: Any) -> np.ndarray:
    """The values of the first input."""
    interface = interface_of(model)
    inputs = plausible_inputs(model, interface, np.random.default_rng(0))
    x = inputs[interface.inputs[0].name]
    assert len(x) == ROWS
    assert np.isfinite(x).all()
    return np.asarray(x)


def test_kinds_take_turns() -> None:
    x = synthetic(dense(features=40))
    normal, unit, one_hot, sparse = (x[kind :: len(KINDS)] for kind in range(len(KINDS)))
    assert (normal < 0).any()
    assert (unit >= 0).all()
    assert (unit <= 1).all()
    assert len(np.unique(unit)) == unit.size
    np.testing.assert_array_equal(np.sort(one_hot, axis=1)[:, -2:], [[0, 1]] * len(one_hot))
    assert ((sparse == 0).mean(axis=1) > 0.6).all()
    assert (sparse != 0).any()


def test_normalization_gives_mean_and_deviation() -> None:
    mean, variance = [300.0, -5.0, 0.01], [100.0, 4.0, 1e-6]
    x = synthetic(dense(layers.Normalization(mean=mean, variance=variance)))
    normal = (x - mean) / np.sqrt(variance)
    assert np.abs(normal).max() < 5
    assert (normal[:: len(KINDS)].std(axis=0) > 0.2).all()


def test_batch_normalization_gives_mean_and_deviation() -> None:
    model = dense(layers.BatchNormalization(name="norm"))
    norm = model.get_layer("norm")
    norm.moving_mean.assign([300.0, -5.0, 0.01])
    norm.moving_variance.assign([100.0, 4.0, 1e-6])
    normal = (synthetic(model) - np.array([300.0, -5.0, 0.01])) / np.array([10.0, 2.0, 1e-3])
    assert np.abs(normal).max() < 5


@pytest.mark.parametrize(
    ("scale", "offset", "low", "high"),
    [(1 / 255, 0.0, 0, 255), (1 / 127.5, -1.0, 0, 255), (0.01, 0.0, 0, 100), (0.5, -2.0, 2, 6)],
)
def test_rescaling_gives_the_range(scale: float, offset: float, low: int, high: int) -> None:
    x = synthetic(dense(layers.Rescaling(scale, offset), features=40))
    assert x.min() == pytest.approx(low, abs=1e-4)
    assert x.max() == pytest.approx(high, abs=1e-3)


def test_layers_behind_others_and_in_nested_models() -> None:
    inner_inputs = keras.Input((5, 3))
    rescaled = layers.Rescaling(1 / 255)(layers.Masking(-1.0)(inner_inputs))
    inner = keras.Model(inner_inputs, layers.LSTM(2)(rescaled))
    sequential = keras.Sequential(
        [keras.Input((15,), name="x"), layers.Reshape((5, 3)), layers.Dropout(0.5), inner]
    )
    x = synthetic(sequential)
    assert (x.min(), x.max()) == (-1, 255)  # -1 is padding


def test_integers_are_classes_of_the_encoding() -> None:
    inputs = keras.Input((40,), dtype="int32", name="x")
    encoded = layers.CategoryEncoding(num_tokens=7, output_mode="multi_hot")(inputs)
    x = synthetic(keras.Model(inputs, layers.Dense(2)(encoded)))
    assert (x.min(), x.max(), x.dtype) == (0, 6, np.int32)
    images = keras.Input((40,), dtype="uint8", name="x")
    x = synthetic(keras.Model(images, layers.Dense(2)(layers.Rescaling(1 / 255)(images))))
    assert (x.min(), x.max(), x.dtype) == (0, 255, np.uint8)
    bits = keras.Input((40,), dtype="int32", name="x")
    x = synthetic(keras.Model(bits, layers.Dense(2)(layers.Rescaling(1.0)(bits))))
    assert set(np.unique(x)) == {0, 1}


@pytest.mark.parametrize(
    ("scaled", "low", "high"),
    [
        (lambda x: ops.cast(x, "float32") / 255.0, 0, 255),
        (lambda x: ops.divide(ops.cast(x, "float32"), 127.5) - 1, 0, 255),
        (lambda x: ops.cast(x, "float32") * 0.01 + 0.5, 0, 100),
        (lambda x: (1.0 - ops.cast(x, "float32")) * -1e9, 0, 1),  # a mask
        (lambda x: ops.one_hot(x, 7)[..., 0] + ops.cast(x, "float32") / 255.0, 0, 6),
    ],
)
def test_integers_divided_by_a_number_have_its_range(
    scaled: Callable[[Any], Any], low: int, high: int
) -> None:
    inputs = keras.Input((40,), dtype="int32", name="x")
    x = synthetic(keras.Model(inputs, layers.Dense(2)(scaled(inputs))))
    assert x.dtype == np.int32
    assert (x.min(), x.max()) == (low, high)


@pytest.mark.parametrize(("weight", "magnitude"), [(1e-4, 1e4), (0.5, 1.0), (1e3, 1e-3)])
def test_weights_of_the_first_layer_give_the_magnitude(weight: float, magnitude: float) -> None:
    model = dense(features=25)
    model.layers[-1].kernel.assign(np.full((25, 2), weight))
    x = synthetic(model)[:: len(KINDS)]
    # The deviation of the outputs is 1, of 25 inputs that each contribute weight * x.
    expected = magnitude / 5 if weight != 0.5 else 1.0
    assert x.std() == pytest.approx(expected, rel=0.3)


@pytest.mark.parametrize(
    ("weights", "magnitude"),
    [
        ((0.5, 1e-31, 1e-33, 0.0), 1.0),  # most units have no effect
        ((1e-4, 1e-33, 1e-31, 1e-12), 1e4 / 5),
        ((1e-31, 1e-33, 0.0, 1e-31), 1.0),  # nor has any
        ((np.nan, 0.5, 0.5, 0.5), 1.0),
    ],
)
def test_units_without_an_effect_do_not_count(weights: tuple[float, ...], magnitude: float) -> None:
    """The median of all deviations gave inputs of 1e30."""
    inputs = keras.Input((25,), name="x")
    model = keras.Model(inputs, layers.Dense(4, name="y")(inputs))
    model.layers[-1].kernel.assign(np.full((25, 4), weights))
    x = synthetic(model)[:: len(KINDS)]
    assert x.std() == pytest.approx(magnitude, rel=0.3)


# The size of the file


def test_a_reference_of_large_rows_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(1).random((50, 3)).astype("float32")
    # Twenty rows: three inputs and two outputs of four bytes each.
    monkeypatch.setattr(size_limit, "MAX_BYTES", 20 * 20)
    entry, arrays = write(dense(), tmp_path, samples=saved(tmp_path, x))
    assert sum(array.nbytes for array in arrays.values()) <= 20 * 20
    assert (entry["samples"], entry["edge_cases"]) == (10, 10)
    np.testing.assert_array_equal(arrays["input/x"][[0, 9]], x[[0, 49]])
    (note,) = entry["notes"]
    assert note.startswith("The reference has 10 samples and 10 edge cases, of 50 and ")
    assert "because the inputs of a sample are large" in note


@pytest.mark.parametrize("attention", [True, False])
def test_what_is_large_is_named(
    attention: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps of 2 heads with 3 x 3 values beside inputs and outputs of 3 values each."""
    monkeypatch.setattr(size_limit, "MAX_BYTES", 20 * 20)
    x = keras.Input((3, 1))
    y = keras.layers.MultiHeadAttention(2, 1)(x, x)
    y = y if attention else keras.layers.Dense(4)(x)
    samples = np.random.default_rng(1).random((50, 3, 1)).astype("float32")
    np.savez(tmp_path / "x.npz", x=samples)
    entry, _ = write(keras.Model(x, y), tmp_path, samples=tmp_path / "x.npz", attention=attention)
    [note] = [note for note in entry["notes"] if note.startswith("The reference has")]
    assert f"because the {'attention maps' if attention else 'outputs'} of a sample are" in note


def test_keras_computes_few_large_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the rows of the reference, of which some may be unusable; labels stay theirs."""
    sizes = []

    class Counting(KerasFunction):
        def __call__(self, inputs: Any) -> Any:
            sizes.append(len(inputs["x"]))
            return super().__call__(inputs)

    def counting(*args: Any, **kwargs: Any) -> Any:
        return Counting(**vars(keras_function(*args, **kwargs)))

    monkeypatch.setattr(reference_file, "keras_function", counting)
    monkeypatch.setattr(size_limit, "MAX_BYTES", 20 * 20)
    monkeypatch.setattr(size_limit, "MOST_BYTES", 0)
    x = np.random.default_rng(1).random((50, 3)).astype("float32")
    np.savez(tmp_path / "x.npz", x=x, y=np.arange(50))
    entry, arrays = write(dense(), tmp_path, samples=tmp_path / "x.npz")
    assert sizes[0] == 40
    assert (entry["samples"], entry["edge_cases"]) == (10, 10)
    np.testing.assert_array_equal(arrays["input/x"][:10], x[arrays["target"]])
    (note,) = entry["notes"]
    assert note.startswith("The reference has 10 samples and 10 edge cases, of 50 and 18,")


@pytest.mark.parametrize(
    ("megabytes", "rows"), [(0.25, 64), (1, 16), (2, 12), (4, 6), (6, 4), (16, 4), (200, 4)]
)
def test_rows_of_many_megabytes_are_few(megabytes: float, rows: int) -> None:
    assert size_limit.row_limit(int(megabytes * 2**20)) == rows


def test_maps_of_longer_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of two steps has 8 * 4 bytes, and is counted as 4 times as large with 4 steps."""
    x = keras.Input((None, 1), name="x")
    model = keras.Model(x, layers.Dense(3)(x))
    free = free_model(model, interface_of(model, time_steps=2))
    assert free is not None
    monkeypatch.setattr(other_lengths, "MAX_BYTES", 32 * 8)
    inputs = {"x": np.ones((8, 2, 1), "float32")}
    arrays = other_lengths.other_lengths(free, inputs, attention=False, row_bytes=32)
    rows = {key.partition("/")[0]: len(array) for key, array in arrays.items()}
    assert sorted(rows.values()) == [2, 4, 4]
    # A row of 4 steps has more than 100 bytes, and a row of 3 steps is needed.
    monkeypatch.setattr(other_lengths, "MAX_BYTES", 100)
    arrays = other_lengths.other_lengths(free, inputs, attention=False, row_bytes=32)
    rows = {key.partition("/")[0]: len(array) for key, array in arrays.items()}
    assert sorted(rows.values()) == [3, 3]


@pytest.mark.parametrize(
    ("parts", "limit", "expected"),
    [
        ((5, 3, 2, 2), 12, (5, 3, 2, 2)),
        ((64, 64, 9, 9), 40, (20, 16, 2, 2)),
        ((4, 80, 10, 10), 24, (4, 16, 2, 2)),
        ((64, 0, 4, 0), 24, (20, 0, 4, 0)),
    ],
)
def test_rows_within_the_limit(
    parts: tuple[int, ...], limit: int, expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(size_limit, "MAX_BYTES", 8 * limit)
    ends = np.cumsum(parts)
    indices = [np.arange(end - count, end) for end, count in zip(ends, parts, strict=True)]
    rows = size_limit.within_limit(UsableRows(*indices, 0, 0), [np.zeros((ends[-1], 2), "f4")])
    kept = (rows.samples, rows.ordinary, rows.float16, rows.others)
    assert tuple(map(len, kept)) == expected
    for part, original in zip(kept, indices, strict=True):
        assert set(part) <= set(original)
        assert len(set(part)) == len(part)


# Outputs in dictionaries


@pytest.mark.parametrize("keys", [("y", "a", "x"), ("x", "x_1")])
def test_outputs_with_the_name_of_the_input(keys: tuple[str, ...], tmp_path: Path) -> None:
    """They have other names in files, in an order that is not that of the keys in Keras' lists."""
    x = keras.Input((5, 4), name="x")
    hidden = keras.layers.Attention(name="attention")([x, x])
    values = dict(zip(keys, (hidden, hidden[:, 0], x * 2), strict=False))
    model = keras.Model(x, values)
    interface = interface_of(model)
    names = [spec.name for spec in interface.outputs]
    assert len(names) == len(keys)
    assert "x" not in names
    inputs = {"x": np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")}
    expected = model(inputs["x"])
    actual = predict(model, interface, inputs)
    traced = keras_function(model, interface, attention=True)(inputs).with_maps
    for name, key in zip(names, keys, strict=True):
        np.testing.assert_allclose(actual[name], expected[key], rtol=1e-5)
        np.testing.assert_allclose(traced[name], expected[key], rtol=1e-5)


def test_models_for_a_number_of_samples_are_refused() -> None:
    """They combine the samples: a reshape to the number with which they were created."""
    x = keras.Input(batch_shape=(4, 6, 4))
    model = keras.Model(x, keras.layers.Dense(3)(keras.ops.reshape(x, (4, -1))))
    interface = interface_of(model)
    inputs = {interface.inputs[0].name: np.zeros((8, 6, 4), "float32")}
    with pytest.raises(UnsupportedModelError, match="expected axis -1 of input shape") as error:
        predict(model, interface, inputs)
    assert "\x1b" not in str(error.value)
    assert "keras.Input(batch_shape=...)" in str(error.value.hint)
