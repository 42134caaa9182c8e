"""ONNX files of models with a free time axis accept sequences of any length."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from corpus.routes import in_this_process
from keras import ops
from long_parameters import only

import edgeattn as package
import models
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import sha256, write_manifest
from edgeattn.errors import SampleError
from edgeattn.layers import Attention
from edgeattn.runners import open_runner
from edgeattn.samples.npz import read_npz, write_npz
from edgeattn.tensors import TensorSpec
from edgeattn_converters import ConversionOptions, ModelSource, convert
from edgeattn_converters.formats import ConvertedFile, free_time, onnx
from edgeattn_converters.loading.migrate.time_distributed import compute_every_step
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.free_time import FreeModel, free_model
from edgeattn_converters.tracing.trace import interface_of

layers = keras.layers
STEPS, FEATURES = 6, 4
LENGTHS = (1, 3, 6, 11)


def sequences(length: int, rows: int = 3) -> np.ndarray:
    generator = np.random.default_rng(length)
    x = generator.normal(size=(rows, length, FEATURES)).astype("float32")
    x[0, length // 2 :] = 0  # padding, for models that mask
    return x


def several(steps: int | None) -> Any:
    """One output for each kind of layer."""
    x = keras.Input((steps, FEATURES), name="x")
    masked = layers.Masking()(x)
    heads = layers.MultiHeadAttention(2, 3, name="heads")
    groups = layers.GroupQueryAttention(2, 4, 2, name="groups")
    outputs = {
        "lstm": layers.LSTM(3)(masked),
        "both": layers.Bidirectional(layers.GRU(3, return_sequences=True))(x),
        "both_masked": layers.Bidirectional(layers.LSTM(3, return_sequences=True))(masked),
        "backward": layers.SimpleRNN(3, go_backwards=True)(masked),
        "causal": heads(x, x, use_causal_mask=True),
        "groups": groups(x, x),
        "dot": layers.Attention(name="dot")([x, x], use_causal_mask=True),
        "look": Attention(3, name="look")(layers.LSTM(3, return_sequences=True)(x)),
        "look_masked": Attention(3, name="look_masked")(masked),
        "convolution": layers.Conv1D(3, 3, padding="causal")(x),
        "mean": layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x)),
    }
    return keras.Model(x, outputs)


@pytest.mark.long
def test_layers_at_several_lengths(tmp_path: Path) -> None:
    fixed, free = several(STEPS), several(None)
    models.filled(fixed)
    free.set_weights(fixed.get_weights())
    interface = interface_of(fixed)
    found = free_model(free, interface)
    assert found is not None
    path = tmp_path / "m.onnx"
    axes = (("x", (1,)), ("both", (1,)), ("attention/heads", (2, 3)))
    of_any_length = replace(found, axes=axes)
    file = onnx.convert(fixed, interface, recipe_for("float32"), path, free=of_any_length)
    assert file.inputs == interface.inputs
    runner = open_runner(path, "onnx", file.inputs, file.outputs)
    for length in LENGTHS:
        x = sequences(length)
        outputs = runner.run({"x": x})
        for name, expected in free.predict(x, verbose=0).items():
            message = f"{name} at {length} steps"
            np.testing.assert_allclose(outputs[name], expected, atol=2e-5, err_msg=message)


def every_step(steps: int | None) -> Any:
    """Layers in TimeDistributed: of one step, of an image, of words with padding, and in a nested
    model, which contains another TimeDistributed."""
    x = keras.Input((steps, FEATURES), name="x")
    words = keras.Input((steps, 5), dtype="int32", name="words")
    masked = layers.GRU(3, return_sequences=True)(layers.Masking()(x))
    step = keras.Input((4,))
    pairs = layers.TimeDistributed(layers.Dense(2))(layers.Reshape((2, 2))(step))
    nested = keras.Model(step, layers.Flatten()(pairs))
    images = layers.TimeDistributed(layers.Reshape((2, 2, 1)))(x)
    embedded = layers.TimeDistributed(layers.Embedding(7, 3, mask_zero=True))(words)
    outputs = {
        "dense": layers.TimeDistributed(layers.Dense(2, activation="softmax"))(masked),
        "image": layers.TimeDistributed(layers.Conv2D(2, 2))(images),
        "words": layers.TimeDistributed(layers.LSTM(3))(embedded),
        "nested": layers.GRU(2)(layers.TimeDistributed(nested)(x)),
    }
    return keras.Model([x, words], outputs)


@pytest.mark.long
def test_every_step_of_time_distributed(tmp_path: Path) -> None:
    """With a free time axis, Keras 3.15 computes as many steps as there are samples."""
    fixed, free = every_step(STEPS), every_step(None)
    models.filled(fixed)
    free.set_weights(fixed.get_weights())
    interface = interface_of(fixed)
    compute_every_step(free)  # as in a model that is loaded
    found = free_model(free, interface)
    assert found is not None
    axes = (("x", (1,)), ("words", (1,)), ("dense", (1,)), ("image", (1,)), ("words_1", (1,)))
    path = tmp_path / "m.onnx"
    of_any_length = replace(found, axes=axes)
    file = onnx.convert(fixed, interface, recipe_for("float32"), path, free=of_any_length)
    runner = open_runner(path, "onnx", file.inputs, file.outputs)
    for length in (1, STEPS, 9):
        x = sequences(length, rows=2)
        words = np.random.default_rng(length).integers(0, 7, (2, length, 5)).astype("int32")
        same = every_step(length)
        same.set_weights(fixed.get_weights())
        outputs = runner.run({"x": x, "words": words})
        for name, value in same.predict([x, words], verbose=0).items():
            actual = outputs["words_1" if name == "words" else name]
            np.testing.assert_allclose(actual, value, atol=2e-5, err_msg=f"{name} at {length}")


@pytest.fixture(scope="module")
def model() -> Any:
    x = keras.Input((None, FEATURES), name="x")
    states = layers.LSTM(5, return_sequences=True)(layers.Masking()(x))
    each = layers.Dense(2, name="each")(states)
    return models.filled(keras.Model(x, [each, Attention(3, name="look")(states)]))


@pytest.fixture(scope="module")
def bundle(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("any") / "m.keras"
    model.save(path)
    with in_this_process():
        conversion = convert(
            ModelSource(path, time_steps=STEPS),
            options=ConversionOptions(schemes=("float32", "dynamic_int8")),
        )
    return conversion.bundle


def test_manifest_and_validation(bundle: Bundle, edgeattn: Callable[..., Any]) -> None:
    by_label = {artifact.label: artifact for artifact in bundle.manifest.artifacts}
    float32 = by_label["onnx float32"]
    assert float32.free_axes == {"x": (1,), "each": (1,), "attention/look": (1,)}
    assert by_label["tflite float32"].free_axes == {}
    assert bundle.manifest.reference["lengths"] == [STEPS // 2, STEPS + 1, 2 * STEPS]
    with in_this_process():
        result = edgeattn("validate", bundle.path, "--jobs", 1, "--json")
    assert result.code in (0, 6), result.out
    for item in result.document["artifacts"]:
        checks = {c["output"]: c for c in item["checks"] if c["metric"] == "length_error"}
        if by_label[f"{item['format']} {item['scheme']}"].free_axes:
            assert set(checks) == {"each", "look", "attention/look"}
            assert all(check["passed"] for check in checks.values())
        else:
            assert not checks


def test_load_accepts_any_length(bundle: Bundle, model: Any) -> None:
    loaded = package.load(bundle.path, format="onnx", scheme="float32")
    for length in LENGTHS:
        x = sequences(length)
        each, look = model.predict(x, verbose=0)
        for row in range(len(x)):
            outputs = loaded(x[row])
            np.testing.assert_allclose(outputs["each"], each[row : row + 1], atol=1e-5)
            np.testing.assert_allclose(outputs["look"], look[row : row + 1], atol=1e-5)
            assert outputs["attention/look"].shape == (1, length)
    with pytest.raises(SampleError, match=r"shape \(any, 4\), received \(3, 5\)"):
        loaded(np.zeros((3, 5), "float32"))
    fixed = package.load(bundle.path, format="tflite")
    with pytest.raises(SampleError, match="any length: onnx float32"):
        fixed(np.zeros((STEPS + 1, FEATURES), "float32"))


def test_run_selects_a_file_for_the_length(
    bundle: Bundle, model: Any, edgeattn: Callable[..., Any]
) -> None:
    for length, format in ((STEPS, "tflite"), (9, "onnx")):
        np.save("x.npy", sequences(length))
        result = edgeattn(
            "run", bundle.path, "--input", "x.npy", "-o", "y.npz", "--force", "--json"
        )
        assert (result.code, result.document["format"]) == (0, format), result.err
        with np.load("y.npz") as outputs:
            expected, _ = model.predict(sequences(length), verbose=0)
            np.testing.assert_allclose(outputs["each"], expected, atol=1e-5)


def test_a_file_that_differs_at_another_length_fails(
    bundle: Bundle, edgeattn: Callable[..., Any], tmp_path: Path
) -> None:
    """Other expected values at one length only, as if the file were wrong there."""
    import shutil

    copy = tmp_path / "copy.edge"
    shutil.copytree(bundle.path, copy)
    path = copy / "reference.npz"
    arrays = dict(read_npz(path))
    key = f"steps-{STEPS + 1}/output/look"
    arrays[key] = arrays[key] + 0.01
    with path.open("wb") as file:
        write_npz(file, arrays)
    manifest = replace(
        bundle.manifest, reference={**bundle.manifest.reference, "sha256": sha256(path)}
    )
    write_manifest(copy, manifest)
    with in_this_process():
        result = edgeattn("validate", copy, "--scheme", "float32", "--jobs", 1, "--json")
    verdicts = {item["format"]: item["verdict"] for item in result.document["artifacts"]}
    assert verdicts == {"tflite": "pass", "onnx": "fail"}
    assert f"at {STEPS + 1} steps" in json.dumps(result.document)


def test_a_graph_with_one_length_keeps_it(edgeattn: Callable[..., Any], tmp_path: Path) -> None:
    x = keras.Input((None, FEATURES), name="x")
    shifted = x + np.float32(np.arange(STEPS * FEATURES).reshape(1, STEPS, FEATURES))
    model = keras.Model(x, layers.Dense(2, name="y")(ops.mean(shifted, axis=1)))
    models.filled(model).save(tmp_path / "m.keras")
    with in_this_process():
        result = edgeattn("convert", "m.keras", "--time-steps", STEPS, "--scheme", "float32")
    assert result.code == 0, result.err
    assert "onnx float32: one sequence length only. Keras itself" in result.out
    artifact = Bundle.open(tmp_path / "m.edge").select(("onnx",))[0]
    assert (artifact.free_axes, artifact.inputs[0].shape) == ({}, (None, STEPS, FEATURES))


@pytest.mark.parametrize("steps", only([1, 2], 1))
def test_a_step_of_a_decoder_with_the_map_of_one_query(
    steps: int, edgeattn: Callable[..., Any], tmp_path: Path
) -> None:
    """The map has no axis of queries for one step, and a file for any length would have one."""
    x, state = keras.Input((None, FEATURES), name="x"), keras.Input((5,), name="state")
    encoded = keras.Input((7, 5), name="encoded")
    decoded = layers.GRU(5, return_sequences=True)(x, initial_state=state)
    # A softmax over the first of two axes, as in programs of users.
    weights = ops.softmax(ops.matmul(encoded, ops.transpose(decoded, (0, 2, 1))), axis=1)
    y = layers.Dense(3)(ops.matmul(ops.transpose(weights, (0, 2, 1)), encoded))
    path = tmp_path / "m.keras"
    models.filled(keras.Model([x, state, encoded], y)).save(path)
    arguments = ("--time-steps", steps, "--scheme", "float32", "--format", "onnx")
    with in_this_process():
        result = edgeattn("convert", path, *arguments)
    assert result.code == 0, result.err
    any_length = "Files for sequences of any length were compared at"
    reason = "of one step has no axis of queries. With more --time-steps it has one"
    assert (any_length in result.out, reason in result.out) == (steps > 1, steps == 1)
    [row] = [line.split() for line in result.out.splitlines() if line.startswith("pass")]
    # The state has no steps.
    assert row[3] == "any" if steps > 1 else row[3:5] == ["1,", "7"]


@pytest.mark.long
def test_states_are_carried_between_lengths(edgeattn: Callable[..., Any], tmp_path: Path) -> None:
    """Parts of any lengths give the results of the whole sequence; files have states and a free
    time axis."""
    x = keras.Input((None, FEATURES), name="x")
    first = layers.LSTM(4, return_sequences=True, name="first")(x)
    each = layers.Dense(2, name="each")(layers.GRU(3, return_sequences=True, name="second")(first))
    whole = models.filled(keras.Model(x, each))
    whole.save(tmp_path / "m.keras")
    with in_this_process():
        options = ConversionOptions(schemes=("float32",), formats=("onnx",), states=True)
        bundle = convert(
            ModelSource(tmp_path / "m.keras", time_steps=STEPS), options=options
        ).bundle
    [artifact] = bundle.manifest.artifacts
    assert artifact.free_axes == {"x": (1,), "each": (1,)}
    sequence = sequences(12)[1]
    expected = whole.predict(sequence[None], verbose=0)
    model = package.load(bundle.path, carry_states=True)
    for _ in range(2):
        parts = [model(part)["each"].copy() for part in np.split(sequence, [1, 3, 8])]
        np.testing.assert_allclose(np.concatenate(parts, axis=1), expected, atol=1e-5)
        with pytest.raises(SampleError):
            model(np.zeros((3, 5), "float32"))  # a call that fails changes no state
        model.reset()
    fresh = package.load(bundle.path)
    for part in np.split(sequence, [2, 4]):
        result = whole.predict(part[None], verbose=0)
        np.testing.assert_allclose(fresh(part)["each"], result, atol=1e-5)
    np.save(tmp_path / "x.npy", sequence.reshape(3, 4, FEATURES))
    arguments = ("--carry-states", "--input", tmp_path / "x.npy", "-o", tmp_path / "y.npz")
    result = edgeattn("run", bundle.path, *arguments)
    assert result.code == 0, result.err
    with np.load(tmp_path / "y.npz") as outputs:
        np.testing.assert_allclose(outputs["each"].reshape(expected.shape), expected, atol=1e-5)


def test_the_reason_for_one_length_is_no_message_of_onnxruntime(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    message = "onnxruntime 1.32.0 failed: [ONNXRuntimeError] : 1 : FAIL : Non-zero status code"
    monkeypatch.setattr(free_time, "open_runner", lambda *_: io.StringIO())
    monkeypatch.setattr(free_time, "run_lengths", lambda *_: {3: message})
    specs = (TensorSpec("x", (None, STEPS, FEATURES), "float32"),)
    file = ConvertedFile(specs, specs, (), {})
    reference = {
        "input/x": sequences(STEPS), "steps-3/input/x": sequences(3),
        "output/x": sequences(STEPS), "steps-3/output/x": sequences(3),
    }  # fmt: skip
    free = FreeModel(None, None)  # type: ignore[arg-type]
    result = free_time.convert_free(
        lambda *_, **__: file, tmp_path / "m.onnx", "float32", reference, free
    )
    assert result == (
        None,
        None,
        "onnxruntime cannot compute the file with a free time axis for sequences of 3 steps.",
    )


@pytest.mark.long
def test_inputs_of_different_lengths(edgeattn: Callable[..., Any], tmp_path: Path) -> None:
    """An encoder and a decoder, whose lengths are those of their samples."""
    source, target = keras.Input((None, 3), name="source"), keras.Input((None, 2), name="target")
    encoded, state = layers.GRU(4, return_sequences=True, return_state=True)(source)
    decoded = layers.GRU(4, return_sequences=True)(target, initial_state=state)
    attended = layers.Attention(name="look")([decoded, encoded])
    each = layers.Dense(2, name="each")(layers.Concatenate()([decoded, attended]))
    model = models.filled(keras.Model([source, target], each))
    model.save(tmp_path / "several.keras")

    def samples(steps: int, others: int, rows: int = 5) -> dict[str, np.ndarray]:
        generator = np.random.default_rng(steps)
        shapes = {"source": (rows, steps, 3), "target": (rows, others, 2)}
        return {name: generator.normal(size=s).astype("float32") for name, s in shapes.items()}

    np.savez(tmp_path / "samples.npz", **samples(6, 4))
    with in_this_process():
        arguments = ("--samples", "samples.npz", "--scheme", "float32")
        result = edgeattn("convert", "several.keras", *arguments)
    assert result.code == 0, result.err
    bundle = Bundle.open(tmp_path / "several.edge")
    by_format = {artifact.format: artifact for artifact in bundle.manifest.artifacts}
    assert [spec.shape for spec in by_format["tflite"].inputs] == [(1, 6, 3), (1, 4, 2)]
    assert by_format["onnx"].free_axes == {
        "source": (1,), "target": (1,), "each": (1,), "attention/look": (1, 2),
    }  # fmt: skip
    for format, lengths in (("tflite", (6, 4)), ("onnx", (6, 4)), ("onnx", (3, 9))):
        x = samples(*lengths)
        loaded = package.load(bundle.path, format=format)
        expected = model.predict([x["source"], x["target"]], verbose=0)
        for row in range(2):
            outputs = loaded({name: array[row] for name, array in x.items()})
            np.testing.assert_allclose(outputs["each"], expected[row : row + 1], atol=1e-5)
    np.savez(tmp_path / "data.npz", **samples(6, 4, rows=40))
    with in_this_process():
        result = edgeattn("validate", "several.edge", "--data", "data.npz", "--jobs", 1)
    assert result.code == 0, result.out
