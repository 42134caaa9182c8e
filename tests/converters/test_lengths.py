"""``--time-steps`` several times: a bundle for each length, of which ``load`` selects one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from corpus.routes import in_this_process
from long_parameters import only

import edgeattn as package
import edgeattn_converters as converters
import models
from edgeattn_converters.reference import reference_file
from edgeattn_converters.reference.other_lengths import FEWEST, ROWS, other_lengths
from edgeattn_converters.tracing.free_time import free_model
from edgeattn_converters.tracing.trace import Interface, interface_of

layers = keras.layers
LENGTHS = (5, 3)


@pytest.fixture(scope="module")
def model() -> Any:
    x = keras.Input((None, 2), name="x")
    return models.filled(keras.Model(x, layers.Dense(2, name="y")(layers.GRU(3)(x))))


@pytest.fixture
def path(model: Any, tmp_path: Path) -> Path:
    file = tmp_path / "model.keras"
    model.save(file)
    return file


def test_a_bundle_for_each_length(path: Path, model: Any, edgeattn: Callable[..., Any]) -> None:
    steps = [word for length in LENGTHS for word in ("--time-steps", length)]
    with in_this_process():
        result = edgeattn("convert", path, *steps, "--scheme", "float32", "--json")
    assert result.code == 0, result.err
    folder = path.with_suffix(".edge")
    written = [Path(document["bundle"]) for document in result.document["bundles"]]
    assert [bundle.name for bundle in written] == ["steps-5", "steps-3"]
    assert {bundle.parent.resolve() for bundle in written} == {folder.resolve()}
    for format in ("tflite", "onnx"):
        loaded = package.load(folder, format=format)
        for length in (*LENGTHS, LENGTHS[0]):
            x = np.random.default_rng(length).normal(size=(length, 2)).astype("float32")
            expected = model.predict(x[None], verbose=0)
            np.testing.assert_allclose(loaded(x)["y"], expected, atol=1e-5)


@pytest.mark.long
def test_nothing_is_written_if_one_length_fails(path: Path, edgeattn: Callable[..., Any]) -> None:
    with in_this_process():
        result = edgeattn("convert", path, "--time-steps", 3, "--time-steps", 99_999)
    assert (result.code, "99999" in result.err) == (2, True)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_length_that_is_repeated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converters, "convert", lambda source, *_, **__: source.time_steps)
    assert converters.convert_lengths(path, [3, 3]) == (3,)


def test_samples_have_one_length(path: Path, edgeattn: Callable[..., Any]) -> None:
    np.save(path.with_name("x.npy"), np.zeros((4, 3, 2), "float32"))
    steps = ("--time-steps", 3, "--time-steps", 5)
    for option in ("--samples", "--calibration"):
        result = edgeattn("convert", path, *steps, option, path.with_name("x.npy"))
        assert (result.code, "one length" in result.err, "{steps}" in result.err) == (2, True, True)
        result = edgeattn("convert", path, *steps, option, path.with_name("x-{steps}.npy"))
        assert (result.code, "x-3.npy" in result.err) == (2, True)


def sequences(length: int, rows: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng((length, seed))
    return generator.normal(size=(rows, length, 2)).astype("float32")


@pytest.fixture(scope="module")
def convolution() -> Any:
    x = keras.Input((None, 2), name="x")
    hidden = layers.Conv1D(16, 3, padding="same", activation="relu")(x)
    each = layers.Dense(3, name="each")(hidden)
    return models.filled(
        keras.Model(x, [each, layers.Dense(2, name="y")(layers.GlobalMaxPooling1D()(hidden))])
    )


@pytest.fixture(scope="module")
def folder(convolution: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundles of two lengths, each calibrated with sequences of its own."""
    path = tmp_path_factory.mktemp("lengths") / "model.keras"
    convolution.save(path)
    for length in LENGTHS:
        np.save(path.with_name(f"calibration-{length}.npy"), sequences(length, 110))
    with in_this_process():
        result = package.convert(
            path,
            time_steps=LENGTHS,
            calibration=path.with_name("calibration-{steps}.npy"),
            schemes=("float32", "int8"),
        )
    assert result.exit_code == 0
    assert {len(item.bundle.manifest.artifacts) for item in result.conversions} == {4}
    return result.path


def test_calibration_samples_determine_the_length(
    convolution: Any, edgeattn: Callable[..., Any], tmp_path: Path
) -> None:
    convolution.save(tmp_path / "sized.keras")
    np.save(tmp_path / "sized.npy", sequences(4, 110))
    arguments = ("--calibration", "sized.npy", "--scheme", "float32", "--scheme", "int8")
    with in_this_process():
        result = edgeattn("convert", "sized.keras", *arguments, "--format", "tflite")
    assert result.code == 0, result.err
    loaded = package.load(tmp_path / "sized.edge", scheme="float32")
    [x] = sequences(4, 1, seed=4)
    np.testing.assert_allclose(loaded(x)["each"], convolution(x[None])[0], atol=1e-5)


@pytest.mark.long
def test_calibration_of_each_length(folder: Path, convolution: Any) -> None:
    for format in ("tflite", "onnx"):
        loaded = package.load(folder, format=format, scheme="int8")
        for length in LENGTHS:
            for x in sequences(length, 4, seed=1):
                expected = convolution(x[None])
                for name, value in zip(("each", "y"), expected, strict=True):
                    error = np.abs(loaded(x)[name] - value).max()
                    assert error < 0.1 * np.abs(value).max(), (format, length, name)


@pytest.mark.parametrize("length", [*LENGTHS, 9])
def test_run_selects_the_bundle_of_the_length(
    length: int, folder: Path, convolution: Any, edgeattn: Callable[..., Any]
) -> None:
    x = sequences(length, 3, seed=2)
    np.savez("x.npz", x=x)
    for format in ("tflite", "onnx"):
        arguments = ("--input", "x.npz", "-o", "y.npz", "--force", "--format", format)
        result = edgeattn("run", folder, *arguments)
        if length not in LENGTHS and format == "tflite":
            assert (result.code, "for sequences of 3, 5 steps" in result.err) == (2, True)
            continue
        assert result.code == 0, result.err
        with np.load("y.npz") as outputs:
            expected, _ = convolution(x)
            np.testing.assert_allclose(outputs["each"], expected, atol=1e-5)


def test_an_error_that_is_not_about_the_length(folder: Path, edgeattn: Callable[..., Any]) -> None:
    np.savez("x.npz", other=sequences(3, 2), another=sequences(3, 2))
    for command in (("run", folder, "--input"), ("validate", folder, "--data")):
        for file in ("x.npz", "missing.npz"):
            result = edgeattn(*command, file)
            assert (result.code, "for sequences of" in result.err) == (2, False), result.err


def test_validate_selects_the_bundle_of_the_length(
    folder: Path, convolution: Any, edgeattn: Callable[..., Any]
) -> None:
    """The Keras file beside the folder is found, so that errors on the data are those of Keras."""
    for length in LENGTHS:
        x = sequences(length, 40, seed=3)
        np.savez("data.npz", x=x)
        with in_this_process():
            result = edgeattn("validate", folder, "--data", "data.npz", "--jobs", 1, "--json")
        assert result.code == 0, result.out
        document = result.document
        assert {item["format"] for item in document["artifacts"]} == {"tflite", "onnx"}
    np.savez("data.npz", x=sequences(9, 4))
    result = edgeattn("validate", folder, "--data", "data.npz")
    assert (result.code, "sequences of 3, 5 steps" in result.err) == (2, True)
    assert "for any length: --format onnx" in result.err
    result = edgeattn("validate", folder)
    assert (result.code, "steps-3" in result.err, "--data" in result.err) == (2, True, True)


@pytest.mark.long
def test_validate_of_artifacts_for_any_length_on_other_lengths(
    folder: Path, convolution: Any, edgeattn: Callable[..., Any]
) -> None:
    """Data of another length than any bundle's are compared with Keras at that length."""
    x = sequences(9, 40, seed=5)
    np.savez("data.npz", x=x, **{"y/y": np.argmax(convolution(x)[1], axis=-1)})
    for path in (folder, folder / "steps-5"):
        with in_this_process():
            result = edgeattn(
                *("validate", path, "--data", "data.npz", "--model", folder.with_suffix(".keras")),
                *("--format", "onnx", "--scheme", "float32", "--jobs", 1, "--json"),
            )
        assert result.code in (0, 6), result.err  # few samples may be inconclusive
        [artifact] = result.document["artifacts"]
        assert artifact["format"] == "onnx"
        assert artifact["task"]["samples"] == 40
        assert artifact["task"]["reference"] == "Keras"
    result = edgeattn("validate", folder / "steps-5", "--data", "data.npz")
    assert (result.code, "of one length: tflite" in result.err) == (2, True)
    assert "--format onnx" in result.err


def step_form(units: int = 5) -> Any:
    """A decoder for one step: the next token and the state give probabilities and a new state."""
    token, state = keras.Input((None,), name="token"), keras.Input((units,), name="state")
    hidden, after = layers.GRU(units, return_sequences=True, return_state=True, name="after")(
        layers.Embedding(7, 4)(token), initial_state=state
    )
    each = layers.Dense(7, activation="softmax", name="each")(hidden)
    return models.filled(keras.Model([token, state], [each, after]))


@pytest.mark.parametrize("steps", only([1, 2, 3], 2))
def test_a_short_sequence_has_other_lengths(steps: int) -> None:
    model = step_form()
    free = free_model(model, interface_of(model, time_steps={"token": steps}))
    assert free is not None
    x = {"token": np.ones((ROWS, steps), "float32"), "state": np.ones((ROWS, 5), "float32")}
    arrays = other_lengths(free, x, attention=False, row_bytes=1)
    sizes = {array.shape[1] for name, array in arrays.items() if name.endswith("input/token")}
    assert len(sizes) >= FEWEST
    assert steps not in sizes


def reference_entry(
    model: Any, interface: Interface, samples: np.ndarray, folder: Path
) -> dict[str, Any]:
    """Write the reference of a model with a free time axis; its entry in the manifest."""
    np.save(folder / "x.npy", samples)
    return reference_file.write(
        model,
        interface,
        folder / "reference.npz",
        samples=folder / "x.npy",
        attention=False,
        extras=reference_file.Extras(free=free_model(model, interface)),
    )


def test_samples_that_a_batch_mixes_are_computed_alone_at_other_lengths(tmp_path: Path) -> None:
    """Keras subtracts the average of the batch, but files compute one sample at a time."""
    x = keras.Input((None, 2), name="x")
    y = keras.ops.sum(keras.ops.square(x - keras.ops.mean(x)), axis=1)
    model = keras.Model(x, layers.Identity(name="y")(y))
    interface = interface_of(model, time_steps={"x": 8})
    x = np.random.default_rng(2).normal(size=(16, 8, 2)).astype("float32")
    entry = reference_entry(model, interface, x, tmp_path)
    assert entry["mixes_samples"]
    assert len(entry["lengths"]) >= FEWEST
    arrays = np.load(tmp_path / "reference.npz")
    for steps in entry["lengths"]:
        values = arrays[f"steps-{steps}/input/x"].astype(float)
        assert values.shape[:2] == (ROWS, steps)
        expected = ((values - values.mean((1, 2), keepdims=True)) ** 2).sum(1)
        np.testing.assert_allclose(arrays[f"steps-{steps}/output/y"], expected, rtol=1e-4)


@pytest.mark.long
def test_the_step_form_of_a_decoder_takes_sequences(
    edgeattn: Callable[..., Any], tmp_path: Path
) -> None:
    """The ONNX file accepts more steps than one; the size of the state is no length."""
    model, path = step_form(), tmp_path / "m.keras"
    model.save(path)
    with in_this_process():
        result = edgeattn("convert", path, "--time-steps", "token=1", "--scheme", "float32")
    assert result.code == 0, result.err
    rows = [line.split()[:4] for line in result.out.splitlines() if line.startswith("pass")]
    assert [(row[1], row[3]) for row in rows] == [("tflite", "1"), ("onnx", "any")]
    loaded = package.load(path.with_suffix(".edge"), format="onnx")
    state = np.linspace(-1, 1, 5, dtype="float32")
    for steps in (1, 4):
        token = np.arange(steps, dtype="float32") + 1
        expected = model([token[None], state[None]])
        outputs = loaded({"token": token, "state": state})
        for name, values in zip(("each", "after"), expected, strict=True):
            np.testing.assert_allclose(outputs[name], values, atol=1e-5)


def test_other_lengths_are_those_of_samples_that_are_compared(tmp_path: Path) -> None:
    """The logarithms of the first sample are not finite, at any length."""
    inputs = keras.Input((None, 2), name="x")
    model = keras.Model(inputs, layers.Identity(name="y")(keras.ops.log(inputs)))
    interface = interface_of(model, time_steps={"x": 4})
    x = np.random.default_rng(0).uniform(1, 2, (6, 4, 2)).astype("float32")
    x[0] = -1
    entry = reference_entry(model, interface, x, tmp_path)
    assert (entry["samples"], entry["lengths"]) == (5, [2, 5, 8])
    with np.load(tmp_path / "reference.npz") as arrays:
        np.testing.assert_array_equal(arrays["steps-2/input/x"], x[1:5, :2])
        np.testing.assert_allclose(arrays["steps-2/output/y"], np.log(x[1:5, :2]), atol=1e-6)
